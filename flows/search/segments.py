"""Parts of an index while it is built: a kill costs at most the part that was under way.

A part is three files, NUMBER.npy, NUMBER.people.parquet and, last, NUMBER.sources.parquet.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.search.layout import PEOPLE_SCHEMA, SOURCES_SCHEMA
from flows.search.sources import Key, SceneFile
from storage import durable

BUILDING = ".building"
_PURPOSE = "purpose"


@dataclass(frozen=True, eq=False)
class Part:
    """People of some files: `people.source` is the row of `sources`, a row of `embeddings` is a person's."""

    sources: pa.Table
    people: pa.Table
    embeddings: np.ndarray


class Segments:
    """Finished parts in the work folder; those of another purpose (model, settings) are dropped."""

    def __init__(self, index: Path, purpose: str) -> None:
        self._folder = index / BUILDING
        mark = self._mark = self._folder / _PURPOSE
        if self._folder.exists() and not (mark.is_file() and mark.read_text() == purpose):
            self.remove()
        durable.make_folder(self._folder)
        durable.remove_abandoned(self._folder)
        if not mark.is_file():
            durable.write(mark, purpose)

    def read(self) -> list[Part]:
        """All parts, in the order in which they were written."""
        parts = []
        for mark in sorted(self._folder.glob("*.sources.parquet")):
            stem = mark.name.partition(".")[0]
            people = pq.read_table(self._folder / f"{stem}.people.parquet", schema=PEOPLE_SCHEMA)
            embeddings = np.load(self._folder / f"{stem}.npy", mmap_mode="r")
            parts.append(Part(pq.read_table(mark, schema=SOURCES_SCHEMA), people, embeddings))
        return parts

    def write(self, part: Part) -> None:
        """Add a part; it is on the disk on return."""
        number = 1 + max((int(m.name[:6]) for m in self._folder.glob("*.sources.parquet")), default=0)
        array = io.BytesIO()
        np.save(array, part.embeddings)
        durable.write(self._folder / f"{number:06d}.npy", array.getvalue())
        durable.write(self._folder / f"{number:06d}.people.parquet", parquet_bytes(part.people))
        durable.write(self._folder / f"{number:06d}.sources.parquet", parquet_bytes(part.sources))

    def remove(self) -> None:
        """Delete all parts: first the mark, since a power cut may leave any of the other files."""
        if self._mark.exists():
            durable.remove(self._mark)
        shutil.rmtree(self._folder)
        durable.flush(self._folder.parent)


def still_to_read(
    sources: Sequence[SceneFile], parts: Sequence[Part]
) -> tuple[list[SceneFile], Mapping[Key, int]]:
    """The files that no part has whole, and by key the frame at which a video goes on."""
    wanted = {source.key: source.stat for source in sources}
    done: set[Key] = set()
    first_frames: dict[Key, int] = {}
    for part in parts:
        for row in part.sources.to_pylist():
            key = row["place"], row["image"]
            if wanted.get(key) != (row["bytes"], row["mtime_ns"]):
                continue
            if row["next_frame"] is None:
                done.add(key)
            else:
                first_frames[key] = row["next_frame"]
    return [source for source in sources if source.key not in done], first_frames


def parquet_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
