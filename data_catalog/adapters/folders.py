"""What adapters of exporters' layouts share: splits by folders and lists, options, refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from data_catalog.adapters.protocol import Options, Unit
from data_catalog.errors import CatalogError
from data_catalog.files import path_fault, plain_name, read_text
from data_catalog.rows import Rows
from data_catalog.schema import INVALID
from data_catalog.split_names import DEFAULT, known_split

PEOPLE = "person,pedestrian,people"
_CONTAINERS = frozenset(
    {"annotations", "annotation", "images", "image", "jpegimages", "labels", "xml", "xmls", "labels_with_ids"}
)
"""Names of folders that say what is in them and not which split it is."""


def split_of(name: str) -> str:
    """The split that a folder's or list's name means, or the name itself: what may be a test is not taken
    for train.
    """
    return known_split(name) or (DEFAULT if name.lower() == "default" else name)


def split_of_path(path: str) -> str:
    """The split of a file by the first of its folders that is not called `images` or the like, else train."""
    parts = PurePosixPath(path).parts[:-1]
    return next((split_of(part) for part in parts if part.lower() not in _CONTAINERS), DEFAULT)


def known_split_of_path(path: str) -> str:
    """The split of a file by the first of its folders that is called as splits are; train where none is."""
    named = (known_split(part) for part in PurePosixPath(path).parts[:-1])
    return next((split for split in named if split is not None), DEFAULT)


def common_folder(paths: Sequence[str]) -> str:
    """The folders, with '/' at the end, that hold all of the paths and say nothing of a split."""
    folders = [PurePosixPath(path).parts[:-1] for path in paths]
    shared: list[str] = []
    for parts in zip(*folders, strict=False):
        if known_split(parts[0]) or len(set(parts)) > 1:
            break
        shared.append(f"{parts[0]}/")
    return "".join(shared)


def folder_option(options: Options, name: str, default: str) -> str:
    """A folder that an option names, without '/' at its end; `.` is the root, the empty text.

    Raises:
        CatalogError: when it is not inside the root.
    """
    folder = options.get(name, default).strip()
    while folder.startswith("./"):
        folder = folder[2:]
    folder = folder.rstrip("/")
    if folder in ("", "."):
        return ""
    if fault := path_fault(folder):
        raise CatalogError(f"option {name}={options.get(name)!r}: {fault}; give a folder inside the root")
    return folder


def names_option(options: Options, name: str, default: str) -> frozenset[str]:
    """Names, separated by commas, as `plain` writes them."""
    return frozenset(plain(part) for part in options.get(name, default).split(",") if part.strip())


def plain(name: str) -> str:
    """A class's name as it is compared: in any case."""
    return name.strip().casefold()


def refusal(root: Path, what: str, layouts: Sequence[str], nearest: str) -> CatalogError:
    """That a root is not of a format: the layouts looked for, and the nearest thing found."""
    looked = "; or ".join(layouts)
    return CatalogError(f"{root} is not a {what}: looked for {looked}. Nearest found: {nearest}")


def what_is_there(files: Iterable[str]) -> str:
    """A few words on the files under a root, for a refusal."""
    counts: dict[str, int] = {}
    for path in files:
        suffix = PurePosixPath(path).suffix.lower() or "no suffix"
        counts[suffix] = counts.get(suffix, 0) + 1
    if not counts:
        return "no files"
    often = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:4]
    return "files of " + ", ".join(f"{suffix} ({number:,})" for suffix, number in often)


def usable(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths that can be stored; the ingest reports the others among the files that are left over."""
    return tuple(path for path in paths if path_fault(path) is None)


def list_entries(path: Path) -> list[tuple[int, str]]:
    """(line, name) of a list of names, one per line; blank lines and comments are left out."""
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(n, plain_name(line.strip())) for n, line in lines if line.strip() and not line.startswith("#")]


def splits_by_lists(
    root: Path, lists: Sequence[tuple[str, str]], find: Callable[[str], str | None]
) -> tuple[dict[str, str], list[Unit]]:
    """Splits of the files that lists name, and units that report entries which name no file.

    Args:
        lists: (path of the list, its split); where two lists of one split name a file it is taken once.
        find: The file that an entry means; None when there is none.

    Raises:
        CatalogError: when no entry of any list names a file, or two splits have one file.
    """
    splits: dict[str, str] = {}
    first_list: dict[str, str] = {}
    units: list[Unit] = []
    for source, split in lists:
        lost: list[str] = []
        for line, entry in list_entries(root / source):
            found = find(entry)
            if found is None:
                lost.append(f"{line}:{entry}")
            elif splits.setdefault(found, split) != split:
                raise CatalogError(
                    f"{root}: {found} is in two splits: {first_list[found]} and {source} list it; "
                    "take it out of one"
                )
            else:
                first_list.setdefault(found, source)
        if lost:
            units.append(Unit(source, split, parameters=tuple(lost)))
    if lists and not splits:
        example = f", such as {units[0].parameters[0].partition(':')[2][:80]!r}" if units else ""
        raise CatalogError(
            f"{root}: no entry of {', '.join(s for s, _ in lists)} names a file that is there{example}"
        )
    return splits, units


def unlisted_entries(unit: Unit) -> Rows:
    """The rejects of a unit that `splits_by_lists` gave."""
    rows = Rows(unit.source)
    for parameter in unit.parameters:
        line, _, entry = parameter.partition(":")
        rows.reject(INVALID, "entry_unknown", f"the list names {entry[:80]!r}: no such file", int(line))
    return rows
