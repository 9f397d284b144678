"""Files of a root that no row comes from: forgotten annotations, and images that nothing annotates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from data_catalog.adapters.protocol import Layout
from data_catalog.files import is_image, path_fault, walk
from data_catalog.findings import EXAMPLES, Finding, Level, finding, present

_ABOUT = ("readme*", "license*", "licence*", "changelog*", "citation*", "copying*", "*.md", "provenance*")
"""What files about a dataset are called, in small letters."""

_WHAT = {
    "image": "image files are not annotated and not used",
    "annotation": "annotation files were not read",
    "name": "files cannot be used: their names are not UTF-8 or not printable",
}
_LEVELS: dict[str, Level] = {"image": "note", "annotation": "warning", "name": "warning"}


def leftovers(root: Path, layout: Layout, images: Collection[str]) -> list[Finding]:
    """What a walk over the root finds beside the files that were read; `images` are those that rows name.

    A file counts as an annotation where its suffix is that of one that was read.
    """
    read = {name for unit in layout.units for name in (unit.source, *unit.also)} | set(layout.shared)
    suffixes = {PurePosixPath(name).suffix.lower() for name in read} - {""}
    left: dict[str, list[str]] = {kind: [] for kind in _WHAT}
    for path in walk(root):
        if path_fault(path) is not None:
            left["name"].append(path.encode("utf-8", "backslashreplace").decode())
        elif path in read or path in images or _is_other(path, layout):
            continue
        elif is_image(path):
            left["image"].append(path)
        elif PurePosixPath(path).suffix.lower() in suffixes and not _is_about(path):
            left["annotation"].append(path)
    return present(
        [
            finding(_LEVELS[kind], f"{kind}_left_over", _examples(paths), _WHAT[kind], len(paths))
            for kind, paths in left.items()
        ]
    )


def _examples(paths: Sequence[str]) -> list[str]:
    """One path of each of the folders that have most of them."""
    folders = Counter(path.rpartition("/")[0] for path in paths)
    first = {path.rpartition("/")[0]: path for path in reversed(paths)}
    return [
        first[folder] if count == 1 else f"{first[folder]} ({count:,} in {folder or 'the root'})"
        for folder, count in folders.most_common(EXAMPLES)
    ]


def _is_other(path: str, layout: Layout) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in layout.other)


def _is_about(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return any(fnmatchcase(name, pattern) for pattern in _ABOUT)
