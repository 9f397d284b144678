"""Lists of names that say which files are of which split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from data_catalog.adapters.protocol import Unit
from data_catalog.errors import CatalogError
from data_catalog.files import numbered_lines, plain_name
from data_catalog.rows import Rows
from data_catalog.schema import INVALID


def list_entries(path: Path) -> list[tuple[int, str]]:
    """(line, name) of a list of names, one per line; blank lines and comments are left out."""
    return [(n, plain_name(line.strip())) for n, line in numbered_lines(path) if not line.startswith("#")]


def splits_by_lists(
    root: Path, lists: Sequence[tuple[str, str]], find: Callable[[str], str | None]
) -> tuple[dict[str, str], list[Unit]]:
    """Splits of the files that lists name, and units that report entries which name no file.

    Args:
        lists: (path of the list, its split); where two lists of one split name a file it is taken once.
        find: The file that an entry means; None if it names no file.

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
        rows.reject(
            INVALID, "entry_unknown", f"the list names {entry[:80]!r}: that file does not exist", int(line)
        )
    return rows
