"""How an adapter says that a root does not have its layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from data_catalog.errors import CatalogError


def refusal(root: Path, what: str, layouts: Sequence[str], nearest: str) -> CatalogError:
    """The error for a root that is not in a format: the layouts looked for, and the nearest thing found."""
    looked = "; or ".join(layouts)
    return CatalogError(f"{root} is not a {what}: looked for {looked}. Nearest found: {nearest}")


def what_is_there(files: Iterable[str]) -> str:
    """A few words on the files under a root, for a refusal."""
    paths = list(files)
    counts = Counter(PurePosixPath(path).suffix.lower() or "no suffix" for path in paths)
    if not counts:
        return "no files"
    often = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:4]
    kinds = ", ".join(f"{suffix} ({number:,})" for suffix, number in often)
    return f"files of {kinds}, such as {paths[0]}"
