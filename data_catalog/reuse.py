"""What an earlier snapshot of the same root spares: units whose files did not change are not read again.

Every row says which unit it was read from. The result is the same, row for row, as that of reading
everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
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
"""Kept rows are held in memory; a snapshot of more boxes, or gallery rows, is read anew, as a stream."""
READ_AGAIN = ("image_unreadable", "image_rejected", QUERY_IMAGE_UNKNOWN)
"""Codes of rejects that depend on other files than their unit's."""

_UNITS = pa.schema(
    [pa.field("source", pa.string(), nullable=False), pa.field("digest", pa.string(), nullable=False)]
)


@dataclass(frozen=True)
class Kept:
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
) -> Kept | None:
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
    return Kept(frozenset(sources), Tables(**tables))


def merged(kept: Kept, parts: Sequence[Tables], units: Sequence[Unit]) -> Tables:
    """Kept and newly read rows in the order of their units."""
    rank = pa.array([unit.source for unit in units], pa.string())
    whole: dict[str, pa.Table] = {}
    for name in (each.name for each in fields(Tables)):
        rows = pa.concat_tables([getattr(tables, name) for tables in (kept.tables, *parts)])
        rows = rows.unify_dictionaries()
        of_unit = pc.index_in(rows["source_unit"].cast(pa.string()), value_set=rank).to_numpy()
        whole[name] = rows.take(pa.array(np.argsort(of_unit, kind="stable")))
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
