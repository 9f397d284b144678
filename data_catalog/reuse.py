"""What an earlier snapshot of the same root spares: units whose files did not change are not read again.

Only units that name image files of their own take part (one annotation file a frame, a sequence or an image);
their rows are told from others by these. The result is the same, row for row, as that of reading everything.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.adapters.protocol import Unit
from data_catalog.rows import ADAPTER_IMAGES, Tables
from data_catalog.schema import GALLERY, QUERIES
from data_catalog.snapshot import Snapshot, write_table

FILE_NAME = "units.parquet"
MOST_BOXES = 5_000_000
"""Kept rows are held in memory; a larger snapshot is read anew, as a stream."""

_UNITS = pa.schema(
    [pa.field("source", pa.string(), nullable=False), pa.field("digest", pa.string(), nullable=False)]
)


@dataclass(frozen=True)
class Kept:
    """The sources that need not be read, and the rows that came from them."""

    sources: frozenset[str]
    tables: Tables


def unit_digest(unit: Unit, annotations: Mapping[str, str], images: Mapping[str, str], how: str) -> str:
    """SHA-256 over everything that a unit's rows depend on; `how` says what is done with image files."""
    files = [(name, annotations.get(name)) for name in (unit.source, *unit.also)]
    pictures = [(name, images.get(name)) for name in unit.images]
    return hashlib.sha256(
        json.dumps([how, unit.split, files, pictures]).encode("utf-8", "surrogatepass")
    ).hexdigest()


def write_units(directory: Path, digests: Mapping[str, str]) -> None:
    """Leave the units' digests beside the tables."""
    columns = [pa.array(list(digests), pa.string()), pa.array(list(digests.values()), pa.string())]
    write_table(directory / FILE_NAME, pa.Table.from_arrays(columns, schema=_UNITS))


def keep_unchanged(previous: Snapshot, units: Sequence[Unit], digests: Mapping[str, str]) -> Kept | None:
    """What an earlier snapshot of the same adapter, version and options spares; None when nothing."""
    path = previous.path / FILE_NAME
    if not path.is_file() or pq.read_metadata(previous.path / "boxes.parquet").num_rows > MOST_BOXES:
        return None
    before = dict(zip(*(column.to_pylist() for column in pq.read_table(path).columns), strict=True))
    owners = Counter(name for unit in units for name in unit.images)
    unchanged = [
        unit
        for unit in units
        if unit.images
        and before.get(unit.source) == digests[unit.source]
        and all(owners[name] == 1 for name in unit.images)
    ]
    if not unchanged:
        return None
    paths = pa.array([name for unit in unchanged for name in unit.images], pa.string())
    images = previous.table("images", ADAPTER_IMAGES.names)
    images = images.filter(pc.is_in(images["rel_path"], value_set=paths))
    boxes, rejects = previous.table("boxes"), previous.table("rejects")
    boxes = boxes.filter(pc.is_in(boxes["image_id"], value_set=images["image_id"].combine_chunks()))
    sources = frozenset(unit.source for unit in unchanged)
    files = pa.array([name for unit in unchanged for name in (unit.source, *unit.also)], pa.string())
    rejects = rejects.filter(pc.is_in(rejects["source_file"].cast(pa.string()), value_set=files))
    tables = Tables(images, boxes, QUERIES.empty_table(), GALLERY.empty_table(), rejects)
    return Kept(sources, tables)


def merged(kept: Kept, parts: Sequence[Tables], units: Sequence[Unit]) -> Tables:
    """Kept and newly read rows in the order of their units."""
    everything = [kept.tables, *parts]
    whole = {
        each.name: pa.concat_tables(
            [getattr(tables, each.name) for tables in everything]
        ).unify_dictionaries()
        for each in fields(Tables)
    }
    rank_of_path = {name: rank for rank, unit in enumerate(units) for name in unit.images}
    rank_of_file = {name: rank for rank, unit in enumerate(units) for name in (unit.source, *unit.also)}
    last = len(units)
    image_rank = np.array(
        [rank_of_path.get(name, last) for name in whole["images"]["rel_path"].to_pylist()], int
    )
    at = pc.index_in(whole["boxes"]["image_id"], value_set=whole["images"]["image_id"].combine_chunks())
    reject_files = whole["rejects"]["source_file"].to_pylist()
    ranks = {
        "images": image_rank,
        "boxes": image_rank[at.to_numpy()] if len(at) else np.zeros(0, int),
        "rejects": np.array([rank_of_file.get(name, last) for name in reject_files], int),
    }
    for name, rank in ranks.items():
        whole[name] = whole[name].take(pa.array(np.argsort(rank, kind="stable")))
    return Tables(**whole)
