"""How an adapter says that a root does not have its layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from data_catalog.errors import CatalogError
from data_catalog.files import walk


def refusal(root: Path, what: str, layouts: Sequence[str], nearest: str) -> CatalogError:
    """The error for a root that is not in a format: the layouts looked for, and the nearest thing found."""
    looked = "; or ".join(layouts)
    return CatalogError(f"{root} is not a {what}: looked for {looked}. Nearest found: {nearest}")


def nearest(root: Path, names: Sequence[str], present: Sequence[str], missing: Sequence[str]) -> str:
    """What comes nearest to a layout: files of these names in a folder further down, or `present` alone."""
    files = walk(root)
    deeper = next(((path, name) for path in files for name in names if path.endswith(f"/{name}")), None)
    if deeper is not None:
        path, name = deeper
        return f"{path}; give {path.removesuffix(f'/{name}')} as the root"
    return f"{', '.join(present)} without {', '.join(missing)}" if present else what_is_there(files)


def what_is_there(files: Iterable[str]) -> str:
    """A few words on the files under a root, for a refusal."""
    paths = list(files)
    counts = Counter(PurePosixPath(path).suffix.lower() or "no suffix" for path in paths)
    if not counts:
        return "no files"
    often = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:4]
    kinds = ", ".join(f"{suffix} ({number:,})" for suffix, number in often)
    return f"files of {kinds}, such as {paths[0]}"
