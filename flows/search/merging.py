"""The tables of an index out of its parts: what stays of the last ones, and what was found since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_catalog.row_tables import corners
from flows.search.embeddings import chunk_rows
from flows.search.layout import PEOPLE_SCHEMA, SOURCES_SCHEMA
from flows.search.segments import Part
from flows.search.sources import Key
from flows.search.tracks import link_frames


@dataclass(frozen=True, eq=False)
class Merged:
    """Sources and people of several parts in the order of an index; `part` and `row` say where each person's
    embedding lies."""

    sources: pa.Table
    people: pa.Table
    parts: Sequence[Part]
    part: NDArray[np.int64]
    row: NDArray[np.int64]

    def embeddings(self, rows: slice) -> NDArray[np.float16]:
        """Embeddings (n, D) of some of the people."""
        part, row = self.part[rows], self.row[rows]
        taken = np.empty((len(row), self.parts[0].embeddings.shape[1]), np.float16)
        for number in np.unique(part):
            own = part == number
            taken[own] = self.parts[number].embeddings[row[own]]
        return taken

    def blocks(self) -> Iterator[NDArray[np.float16]]:
        """All embeddings, in blocks of an index's chunks."""
        size = chunk_rows(len(self.row))
        for start in range(0, len(self.row), size):
            yield self.embeddings(slice(start, start + size))


def merge(
    old: Part,
    kept: Mapping[Key, tuple[int, int]],
    new: Sequence[Part],
    found: Mapping[Key, tuple[int, int]],
) -> Merged:
    """Join what the old part has of the kept files and the new ones of those found.

    Files are given by key with their size and date. Of a video, new parts may hold consecutive frames.
    """
    parts = [old, *new]
    rows: dict[Key, dict[str, Any]] = {}
    keys: list[list[Key | None]] = []
    for part in parts:
        wanted = kept if part is old else found
        keys.append([_taken(row, rows, wanted) for row in part.sources.to_pylist()])
    order = {key: number for number, key in enumerate(sorted(rows))}
    numbers = [[order[key] if key else -1 for key in own] for own in keys]
    people, columns = _sorted_people(parts, numbers)
    merged = Merged(
        sources=pa.Table.from_pylist([rows[key] for key in order], schema=SOURCES_SCHEMA),
        people=people,
        parts=parts,
        part=columns[0],
        row=columns[1],
    )
    return _with_tracks(merged)


def _taken(
    row: dict[str, Any], rows: dict[Key, dict[str, Any]], wanted: Mapping[Key, tuple[int, int]]
) -> Key | None:
    """The key of a part's source if it counts; notes the source."""
    key = row["place"], row["image"]
    if wanted.get(key) != (row["bytes"], row["mtime_ns"]):
        return None
    before = rows.get(key)
    rows[key] = row if before is None else {**row, "frames": before["frames"] + row["frames"]}
    return key


def _sorted_people(
    parts: Sequence[Part], sources: Sequence[Sequence[int]]
) -> tuple[pa.Table, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """People whose source is not -1, by source, frame and their order; and (part, row) of each."""
    tables, part, row, source = [], [], [], []
    for number, (each, numbers) in enumerate(zip(parts, sources, strict=True)):
        own = np.asarray([*numbers, -1], np.int64)[each.people["source"].to_numpy()]
        kept = np.flatnonzero(own >= 0)
        tables.append(each.people.take(pa.array(kept)))
        part.append(np.full(len(kept), number, np.int64))
        row.append(kept)
        source.append(own[kept])
    people = pa.concat_tables([PEOPLE_SCHEMA.empty_table(), *tables]).unify_dictionaries().combine_chunks()
    sources_of = np.concatenate([np.zeros(0, np.int64), *source])
    frame = people["frame"].fill_null(0).to_numpy()
    order = np.lexsort((frame, sources_of))
    people = people.set_column(0, PEOPLE_SCHEMA.field("source"), pa.array(sources_of, pa.int32()))
    where = (np.concatenate([np.zeros(0, np.int64), *each])[order] for each in (part, row))
    return people.take(pa.array(order)).combine_chunks(), (next(where), next(where))


def _with_tracks(merged: Merged) -> Merged:
    """With tracks in the videos that have none yet; tracks are numbered in the order of people."""
    people = merged.people
    frames = people["frame"].to_numpy(zero_copy_only=False)
    of_video = np.flatnonzero(~np.isnan(frames.astype(np.float64)))
    if not len(of_video):
        return merged
    source = people["source"].to_numpy()
    tracks = people["track"].fill_null(-1).to_numpy().astype(np.int64)
    boxes = corners(people)
    starts = of_video[np.flatnonzero(np.diff(source[of_video], prepend=-1))]
    for start in starts.tolist():
        rows = slice(start, start + int((source == source[start]).sum()))
        if (tracks[rows] < 0).any():
            tracks[rows] = link_frames(frames[rows].astype(np.int64), boxes[rows], merged.embeddings(rows))
    _, first, number = np.unique(
        np.stack([source[of_video], tracks[of_video]], axis=1), axis=0, return_index=True, return_inverse=True
    )
    rank = np.argsort(np.argsort(first))
    numbered = np.full(len(people), -1, np.int64)
    numbered[of_video] = rank[number.ravel()]
    column = pa.array(numbered, pa.int32(), mask=numbered < 0)
    at = people.schema.get_field_index("track")
    return replace(merged, people=people.set_column(at, PEOPLE_SCHEMA.field("track"), column))
