"""Files whose names the catalog cannot hold, since they are not UTF-8: a unit that reports them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from data_catalog.adapters.protocol import Unit
from data_catalog.rows import Rows
from data_catalog.schema import INVALID

_SOURCE = "(names that are not UTF-8)"


def has_utf8_name(path: str) -> bool:
    """Whether a file's path is text: `walk` gives other bytes as surrogates."""
    return path.isascii() or not any("\ud800" <= character <= "\udfff" for character in path)


def unnameable_units(paths: Iterable[str]) -> tuple[Unit, ...]:
    """One unit for all files whose names are not UTF-8; none when all are."""
    bad = [path for path in paths if not has_utf8_name(path)]
    escaped = tuple(path.encode("utf-8", "backslashreplace").decode() for path in bad)
    return (Unit(_SOURCE, parameters=escaped, has_file=False),) if bad else ()


def read_unnameable(unit: Unit) -> Sequence[Rows] | None:
    """The rejects of such a unit; None for any other."""
    if unit.source != _SOURCE:
        return None
    rows = Rows(unit.source)
    for number, name in enumerate(unit.parameters, start=1):
        detail = f"the file's name is not UTF-8, rename it: {name[:200]!r}"
        rows.reject(INVALID, "image_path", detail, number)
    return [rows]
