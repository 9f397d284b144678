"""The one way in for a dataset's files: which there are, and which of them a name in an annotation means."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath
from stat import S_ISREG

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError
from data_catalog.suggestions import near_file

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""The one list of what image files are called, for the catalog and for search alike."""
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_LEFT_BEHIND = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin"}
    | {"system volume information", "lost+found"}
)
_PART = "[A-Za-z0-9_,-][A-Za-z0-9_,.-]{0,200}"
_LAST_DIGITS = re.compile(r"([0-9]{1,9})$")
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
    if any("\ud800" <= character <= "\udfff" for character in rel_path):
        return "the name is not UTF-8"
    if not rel_path.isprintable():
        return "the name holds characters that cannot be printed"
    if "\\" in rel_path or rel_path.startswith(("/", "~")) or ":" in rel_path.split("/")[0]:
        return "the name is not a plain relative path"
    if any(part in ("..", "") for part in rel_path.split("/")):
        return "the name leaves its folder"
    if len(rel_path.encode("utf-8", "surrogatepass")) > 1024:
        return "the name is too long"
    return None


def suspicious(rel_paths: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """(n,) bool: which of the paths, none of them null, to check by `path_fault`; the others are harmless."""
    strange = pc.invert(pc.match_substring_regex(rel_paths, _HARMLESS_RE2))
    leaves = pc.match_substring(rel_paths, "..")
    long = pc.greater(pc.binary_length(rel_paths), 200)
    return np.asarray(pc.or_(pc.or_(strange, leaves), long).to_numpy(zero_copy_only=False))


def walk(root: Path, folder: str = "", *, recursive: bool = True) -> tuple[str, ...]:
    """List the regular files in a folder under the root.

    Links are followed, unless they lead to a parent folder; hidden files and what operating systems and
    archivers leave behind are skipped. A name that is not UTF-8 comes with its bytes escaped as Python does
    (surrogates); `path_fault` refuses it.

    Parameters
    ----------
    root
        The dataset's root.
    folder
        A folder in it, with '/'; the root itself by default.
    recursive
        Whether to list the files in folders of the folder, too.

    Returns
    -------
    tuple of str
        Sorted paths with '/', relative to the root; empty if the folder does not exist.

    Raises
    ------
    CatalogError
        If a folder cannot be read.

    Examples
    --------
    >>> walk(root, "annotations")[0]
    'annotations/c1s1_000001.jpg.mat'
    """
    found: list[str] = []
    pending = [(folder.strip("/"), frozenset[tuple[int, int]]())]
    while pending:
        inside, parents = pending.pop()
        try:
            stat = (root / inside).stat()
            entries = list(os.scandir(root / inside))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise CatalogError(f"{root / inside}: cannot be read: {error.strerror}") from error
        if (stat.st_dev, stat.st_ino) in parents:
            continue
        within = parents | {(stat.st_dev, stat.st_ino)}
        for entry in entries:
            if is_left_behind(entry.name):
                continue
            path = f"{inside}/{entry.name}" if inside else entry.name
            if _is(entry.is_dir):
                if recursive:
                    pending.append((path, within))
            elif _is(entry.is_file):
                found.append(path)
    return tuple(sorted(found))


def _is(kind: Callable[[], bool]) -> bool:
    """`entry.is_dir()` or `is_file()`; a link that leads to itself is neither."""
    try:
        return kind()
    except OSError:
        return False


def is_left_behind(name: str) -> bool:
    """Whether a file or folder is hidden, or left behind by an operating system, an archiver or a NAS."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def image_files(root: Path, folder: str, *, recursive: bool = False) -> tuple[str, ...]:
    """List the image files in a folder under the root.

    Parameters
    ----------
    root, folder, recursive
        As for `walk`.

    Returns
    -------
    tuple of str
        Paths relative to the root, sorted.

    Examples
    --------
    >>> image_files(root, "frames")[:1]
    ('frames/c1s1_000001.jpg',)
    """
    return tuple(path for path in walk(root, folder, recursive=recursive) if is_image(path))


def files_with_suffix(root: Path, folder: str, suffix: str, *, recursive: bool = False) -> tuple[str, ...]:
    """List the files in a folder whose names end with a suffix.

    Parameters
    ----------
    root, folder, recursive
        As for `walk`.
    suffix
        Such as `.txt`; upper and lower case are the same.

    Returns
    -------
    tuple of str
        Paths relative to the root, sorted.

    Examples
    --------
    >>> files_with_suffix(root, "", ".TXT")
    ('query_info.txt',)
    """
    found = walk(root, folder, recursive=recursive)
    return tuple(path for path in found if path.lower().endswith(suffix.lower()))


def folders(root: Path, folder: str = "") -> tuple[str, ...]:
    """List the folders in a folder under the root, with links and without hidden ones.

    Parameters
    ----------
    root
        The dataset's root.
    folder
        A folder relative to it.

    Returns
    -------
    tuple of str
        Names, sorted; none if the folder does not exist.

    Examples
    --------
    >>> folders(root)
    ('annotations', 'frames')
    """
    try:
        with os.scandir(root / folder) as entries:
            return tuple(sorted(e.name for e in entries if not is_left_behind(e.name) and _is(e.is_dir)))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def is_image(path: str) -> bool:
    """Whether a path has the suffix of an image file.

    Parameters
    ----------
    path
        A path or a name; only its suffix counts, in upper or lower case.

    Returns
    -------
    bool
        True for suffixes such as `.jpg`, `.png` and `.tif`.

    Examples
    --------
    >>> is_image("train/A.JPG"), is_image("train/A.txt")
    (True, False)
    """
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def plain_name(name: str) -> str:
    """A file's name as annotations mean it: `\\` is `/`, `./` means nothing, accents are single characters.

    Only for names from annotation files; a file on the disk is found by `NameLookup`.
    """
    if name.isascii() and "\\" not in name and "./" not in name and "//" not in name:
        return name
    parts = unicodedata.normalize("NFC", name.replace("\\", "/")).split("/")
    kept = [part for at, part in enumerate(parts) if part != "." and (part or at == 0)]
    return "/".join(kept)


class NameLookup:
    """Finds files by the names that annotations give them, even if the two are spelled differently.

    Parameters
    ----------
    paths
        Paths as `walk` gives them.

    Examples
    --------
    >>> NameLookup(["images/a.jpg"]).find(".\\\\images\\\\a.jpg")
    'images/a.jpg'
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._plain = {plain_name(path): path for path in self._paths if not path.isascii()}

    def find(self, name: str) -> str | None:
        """The file's path as it is on the disk; None when there is no file of that name."""
        if name in self._paths:
            return name
        plain = plain_name(name)
        return plain if plain in self._paths else self._plain.get(plain)


def is_archive(name: str) -> bool:
    """Whether a file's name says that other files are packed in it."""
    return name.lower().endswith(ARCHIVES)


def need_folder(root: Path) -> None:
    """Raise CatalogError when the root is not a folder, with what to do about what it is."""
    if root.is_dir():
        return
    if not root.exists():
        raise CatalogError(f"folder {root} does not exist{near_file(root)}")
    if is_archive(root.name):
        raise CatalogError(f"{root} is an archive: unpack it, and give the folder")
    raise CatalogError(f"{root} is a file: give the folder of the whole dataset")


def usable(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths that can be stored; the ingest reports the others among the files that are left over."""
    return tuple(path for path in paths if path_fault(path) is None)


def frame_number(path: str) -> int | None:
    """The number at the end of a file's name, as videos' frames are numbered; None without one."""
    digits = _LAST_DIGITS.search(PurePosixPath(path).stem)
    return int(digits[1]) if digits else None


def need_files(root: Path, names: Iterable[str], what: str) -> None:
    """Refuse a root that lacks a file.

    Parameters
    ----------
    root
        The dataset's root.
    names
        Paths of the files that it must hold, relative to it.
    what
        What the root should be, for the message.

    Raises
    ------
    CatalogError
        If a file or the root itself does not exist.

    Examples
    --------
    >>> need_files(root, ["query_info.txt"], "PRW dataset")
    """
    need_folder(root)
    missing = [name for name in names if not (root / name).exists()]
    if missing:
        raise CatalogError(f"{root} is not a {what}: {', '.join(missing)} not found")


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """A file, open for reading inside the block; a pipe or a device, which may never end, is not opened.

    Raises:
        CatalogError: when it cannot be opened or read, or is not a regular file.
    """
    try:
        if not S_ISREG(path.stat().st_mode):
            raise CatalogError(f"{path}: cannot be read: it is not a regular file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from error


def read_bytes(path: Path) -> bytes:
    """The file's content without a UTF-8 byte order mark.

    Raises:
        CatalogError: when it cannot be read.
    """
    with open_file(path) as file:
        return file.read().removeprefix(b"\xef\xbb\xbf")


def read_text(path: Path) -> str:
    """Read a text file.

    Parameters
    ----------
    path
        A file in UTF-8, with or without a byte order mark.

    Returns
    -------
    str
        Its text. Bytes that are not UTF-8 become U+FFFD, so rows that hold them fail where they are parsed.

    Raises
    ------
    CatalogError
        If it cannot be read.

    Examples
    --------
    >>> _ = (root / "classes.txt").write_bytes(b"\\xef\\xbb\\xbfperson\\r\\ncar\\r\\n")
    >>> read_text(root / "classes.txt").splitlines()
    ['person', 'car']
    """
    return read_bytes(path).decode("utf-8", "replace")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of each line of a text file that is not blank; raises what `read_text` raises."""
    lines = enumerate(read_text(path).splitlines(), start=1)
    return ((number, line) for number, line in lines if line.strip())
