"""What an earlier snapshot of the same root spares: units whose files did not change are not read again.

Every row says which unit it was read from. The result is the same, row for row, as that of reading
everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.adapters.protocol import Unit
from data_catalog.query_boxes import QUERY_IMAGE_UNKNOWN
from data_catalog.rows import ADAPTER_IMAGES, Tables
from data_catalog.snapshot import Snapshot, write_table

FILE_NAME = "units.parquet"
MOST_ROWS = 5_000_000
"""Kept rows are held in memory; a snapshot of more boxes, or gallery rows, is read again, as a stream."""
READ_AGAIN = ("image_unreadable", "image_rejected", QUERY_IMAGE_UNKNOWN)
"""Codes of rejects that depend on other files than their unit's."""

_UNITS = pa.schema(
    [pa.field("source", pa.string(), nullable=False), pa.field("digest", pa.string(), nullable=False)]
)


@dataclass(frozen=True)
class KeptSources:
    """The sources that need not be read, and the rows that came from them."""

    sources: frozenset[str]
    tables: Tables


def unit_digest(unit: Unit, annotations: Mapping[str, str], images: Mapping[str, str], how: str) -> str:
    """SHA-256 over what a unit's rows depend on; `how` says what is done with image files.

    Images that only its reading names are compared by `keep_unchanged`.
    """
    files = [(name, annotations.get(name)) for name in (unit.source, *unit.also)]
    pictures = [(name, images.get(name)) for name in unit.images]
    return hashlib.sha256(
        json.dumps([how, unit.split, unit.parameters, files, pictures]).encode("utf-8", "surrogatepass")
    ).hexdigest()


def write_units(directory: Path, digests: Mapping[str, str]) -> None:
    """Leave the units' digests beside the tables."""
    columns = [pa.array(list(digests), pa.string()), pa.array(list(digests.values()), pa.string())]
    write_table(directory / FILE_NAME, pa.Table.from_arrays(columns, schema=_UNITS))


def keep_unchanged(
    previous: Snapshot, units: Sequence[Unit], digests: Mapping[str, str], images: Mapping[str, str]
) -> KeptSources | None:
    """What an earlier snapshot of the same adapter, version and options spares; None when nothing.

    `digests` are those of the units, `images` those of the image files, none where these are left out.
    """
    path = previous.path / FILE_NAME
    if not path.is_file() or max(previous.count("boxes"), previous.count("gallery")) > MOST_ROWS:
        return None
    before = dict(zip(*(column.to_pylist() for column in pq.read_table(path).columns), strict=True))
    changed = _with_other_images(previous, images) | _to_read_again(previous)
    sources = [
        unit.source
        for unit in units
        if before.get(unit.source) == digests[unit.source] and unit.source not in changed
    ]
    if not sources:
        return None
    of_kept = pc.field("source_unit").isin(sources)
    tables = {each.name: previous.dataset(each.name).to_table(filter=of_kept) for each in fields(Tables)}
    tables["images"] = tables["images"].select(ADAPTER_IMAGES.names)
    return KeptSources(frozenset(sources), Tables(**tables))


def merged(kept: KeptSources, parts: Iterable[Tables], units: Sequence[Unit]) -> Iterator[Tables]:
    """Kept and newly read rows in the order of their units; `parts` come in that order, one at a time."""
    rank = pa.array([unit.source for unit in units], pa.string())
    waiting = _Waiting(kept.tables, rank)
    for part in parts:
        last = max((int(found.max()) for found in _ranks(part, rank).values() if len(found)), default=-1)
        yield _in_order(waiting.up_to(last), part, rank)
    yield waiting.up_to(len(units))


class _Waiting:
    """Kept rows in the order of their units, and how many of each table have been given out."""

    def __init__(self, tables: Tables, rank: pa.Array) -> None:
        self._tables: dict[str, pa.Table] = {}
        self._ranks: dict[str, np.ndarray] = {}
        for name, of_unit in _ranks(tables, rank).items():
            order = np.argsort(of_unit, kind="stable")
            self._tables[name] = getattr(tables, name).take(pa.array(order))
            self._ranks[name] = of_unit[order]
        self._given = dict.fromkeys(self._tables, 0)

    def up_to(self, last: int) -> Tables:
        """The rows of units up to this one that have not been given out."""
        taken = {}
        for name, table in self._tables.items():
            start = self._given[name]
            end = max(start, int(np.searchsorted(self._ranks[name], last, side="right")))
            taken[name], self._given[name] = table.slice(start, end - start), end
        return Tables(**taken)


def _ranks(tables: Tables, rank: pa.Array) -> dict[str, np.ndarray]:
    """For each table, the place of each row's unit."""
    names = [each.name for each in fields(Tables)]
    sources = {name: getattr(tables, name)["source_unit"].cast(pa.string()) for name in names}
    return {name: pc.index_in(source, value_set=rank).to_numpy() for name, source in sources.items()}


def _in_order(kept: Tables, part: Tables, rank: pa.Array) -> Tables:
    """The rows of both by the order of their units."""
    whole: dict[str, pa.Table] = {}
    for name in (each.name for each in fields(Tables)):
        rows = [getattr(kept, name), getattr(part, name)]
        if not len(rows[0]):
            whole[name] = rows[1]
            continue
        together = pa.concat_tables(rows).unify_dictionaries()
        of_unit = pc.index_in(together["source_unit"].cast(pa.string()), value_set=rank).to_numpy()
        whole[name] = together.take(pa.array(np.argsort(of_unit, kind="stable")))
    return Tables(**whole)


def _with_other_images(previous: Snapshot, images: Mapping[str, str]) -> set[str]:
    """Units that showed an image whose file is gone or has another content now."""
    shown = previous.table("images", ["rel_path", "sha256", "source_unit"])
    now = pa.array([images.get(name) for name in shown["rel_path"].to_pylist()], pa.string())
    same = pc.equal(pc.fill_null(shown["sha256"], ""), pc.fill_null(now, ""))
    return set(shown["source_unit"].filter(pc.invert(same)).unique().to_pylist())


def _to_read_again(previous: Snapshot) -> set[str]:
    """Units with rejects that the files of others may have mended."""
    which = pc.field("code").isin(READ_AGAIN)
    return set(previous.table("rejects", ["source_unit"], which)["source_unit"].unique().to_pylist())
