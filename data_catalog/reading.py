"""What an adapter gives, looked at where it gives it: its author is told in one message, with the file."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_catalog.adapters.protocol import Adapter, Layout, Options, Unit
from data_catalog.errors import CatalogError
from data_catalog.files import need_folder
from data_catalog.rows import Rows


def layout_of(adapter: Adapter, root: Path, options: Options) -> Layout:
    """What the adapter discovers under the root.

    Raises:
        CatalogError: when there is no such folder, the adapter does not know it, or gives anything but a
            layout of units with different sources.
    """
    need_folder(root)
    with _faults_of_others(adapter, str(root)):
        layout = adapter.discover(root, options)
    if not isinstance(layout, Layout):
        raise CatalogError(
            f"adapter {adapter.name!r}: discover gives {_kind(layout)} and not a Layout"
            + ("; does it end with `return Layout(...)`?" if layout is None else "")
        )
    if not isinstance(layout.units, tuple | list):
        raise CatalogError(
            f"adapter {adapter.name!r}: the units of its Layout are {_kind(layout.units)}; give a tuple of "
            "Unit"
        )
    seen: set[str] = set()
    for unit in layout.units:
        if not isinstance(unit, Unit):
            raise CatalogError(
                f"adapter {adapter.name!r}: among the units of its Layout is {_kind(unit)}; give a tuple of "
                "Unit"
            )
        if unit.source in seen:  # units are told apart by their source: two of one name would lose rows
            raise CatalogError(
                f"adapter {adapter.name!r}: two units have the source {unit.source}; give each its own"
            )
        seen.add(unit.source)
    return layout


def rows_of(
    adapter: Adapter, root: Path, unit: Unit, options: Options, others: Sequence[Unit] = ()
) -> Iterator[Rows]:
    """The rows of a unit, part by part; `others` are units that are read beside it.

    Raises:
        CatalogError: when the adapter gives anything but Rows of this unit, each of them once; and what it
            raises itself.
    """
    where = f"adapter {adapter.name!r}, {unit.source}"
    with _faults_of_others(adapter, unit.source):
        given = adapter.read(root, unit, options)
    if isinstance(given, Rows):
        raise CatalogError(f"{where}: read returns its Rows: write `yield rows` in place of `return rows`")
    if not isinstance(given, Iterator | list | tuple):
        raise CatalogError(f"{where}: read gives {_kind(given)}: end it with `yield rows`")
    given = iter(given)
    sources = {each.source for each in others} - {unit.source, *unit.also}
    while True:
        try:
            with _faults_of_others(adapter, unit.source):
                rows = next(given)
        except StopIteration as end:
            if end.value is not None:
                raise CatalogError(
                    f"{where}: read returns {_kind(end.value)} at its end: write `yield` in place of `return`"
                ) from None
            return
        if not isinstance(rows, Rows):
            raise CatalogError(f"{where}: read yields {_kind(rows)}: yield Rows, one after the other")
        if rows.source_unit is not None:
            raise CatalogError(
                f"{where}: read yields Rows that it has yielded before: make new ones, "
                "`rows = Rows(unit.source)`, after each `yield rows`"
            )
        if rows.source_file in sources:
            raise CatalogError(
                f"{where}: read yields rows of {rows.source_file}, which is another unit: make them by "
                "`Rows(unit.source)`"
            )
        rows.source_unit = unit.source
        yield rows


@contextmanager
def _faults_of_others(adapter: Adapter, where: str) -> Iterator[None]:
    """An error of a program that is not ours names the file that was read and the line that failed.

    One of our own adapters is a bug of this project, and keeps its traceback.
    """
    try:
        yield
    except (CatalogError, OSError, MemoryError, StopIteration):
        raise
    except Exception as error:
        if type(adapter).__module__.partition(".")[0] == __name__.partition(".")[0]:
            raise
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise CatalogError(
            f"adapter {adapter.name!r} fails at {where}: {type(error).__name__}: {error} "
            f"({Path(at.filename).name}, line {at.lineno})"
        ) from error


def _kind(value: object) -> str:
    """What something is, for the author of an adapter."""
    return "nothing (None)" if value is None else f"a {type(value).__name__}"
