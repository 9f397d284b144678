"""Paths that a dataset's files name: kept inside the dataset's root."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_PART = "[A-Za-z0-9_,-][A-Za-z0-9_,.-]{0,200}"
_HARMLESS = re.compile(f"{_PART}(?:/{_PART}){{0,4}}")
"""What nearly all names look like; the rest is looked at closely."""

# Of many names at once: that library knows no long repetitions.
_PARTS_RE2 = "[A-Za-z0-9_,-][A-Za-z0-9_,.-]*"
_HARMLESS_RE2 = rf"\A{_PARTS_RE2}(/{_PARTS_RE2})*\z"


def path_fault(rel_path: str) -> str | None:
    """Why a path from an annotation file may not be opened under the root; None when it may."""
    if _HARMLESS.fullmatch(rel_path) and ".." not in rel_path:
        return None
    if not rel_path:
        return "the name is empty"
    if not rel_path.isprintable():
        return "the name holds characters that cannot be printed"
    if "\\" in rel_path or rel_path.startswith(("/", "~")) or ":" in rel_path.split("/")[0]:
        return "the name is no plain relative path"
    if any(part in ("..", "") for part in rel_path.split("/")):
        return "the name leaves its folder"
    if len(rel_path.encode("utf-8", "surrogatepass")) > 1024:
        return "the name is too long"
    return None


def suspicious(rel_paths: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """(n,) bool: paths, none of them null, that `path_fault` is to be asked about; the others have none."""
    strange = pc.invert(pc.match_substring_regex(rel_paths, _HARMLESS_RE2))
    leaves = pc.match_substring(rel_paths, "..")
    long = pc.greater(pc.binary_length(rel_paths), 200)
    return np.asarray(pc.or_(pc.or_(strange, leaves), long).to_numpy(zero_copy_only=False))


def image_files(root: Path, folder: str, *, recursive: bool = False) -> tuple[str, ...]:
    """Image files in a folder under the root, as sorted paths relative to the root; none if it does not
    exist.
    """
    top = root / folder
    if not top.is_dir():
        return ()
    found: list[str] = []
    for base, folders, files in os.walk(top):
        folders.sort()
        inside = PurePosixPath(Path(base).relative_to(root))
        found += [str(inside / name) for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        if not recursive:
            break
    return tuple(sorted(found))


def need_files(root: Path, names: Iterable[str], what: str) -> None:
    """Raise CatalogError when one of the files is not under the root."""
    if not root.is_dir():
        raise CatalogError(f"{root}: no such folder")
    missing = [name for name in names if not (root / name).exists()]
    if missing:
        raise CatalogError(f"{root} is no {what}: {', '.join(missing)} not found")


def read_text(path: Path) -> str:
    """The file as text. UTF-8 with or without a byte order mark; other bytes become U+FFFD, so rows that hold
    them fail where they are parsed.

    Raises:
        CatalogError: when it cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from error
