"""From batches of people to parts of an index."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from data_catalog.row_tables import COORDINATES
from flows.errors import ConfigError
from flows.search.camera_and_time import camera_of
from flows.search.finding import Found, find_people
from flows.search.layout import PEOPLE_SCHEMA, SOURCES_SCHEMA, Settings
from flows.search.segments import Part
from flows.search.sources import Key, SceneFile
from personsearch_core.search.network import PersonSearchNet

_PART_IMAGES = 8192


@dataclass(frozen=True)
class Tally:
    """Images that were searched, people in them, what was wrong with files, and how many were skipped."""

    images: int = 0
    people: int = 0
    skipped: int = 0
    faults: tuple[str, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.images + other.images,
            self.people + other.people,
            self.skipped + other.skipped,
            self.faults + other.faults,
        )


def found_parts(
    net: PersonSearchNet,
    sources: Sequence[SceneFile],
    settings: Settings,
    batch: int,
    first_frames: Mapping[Key, int],
    part_seconds: float,
) -> Iterator[tuple[Tally, Part | None]]:
    """Search files for people: after each batch what was done, and now and then a part of the index.

    Parts end with a batch, so that a run that goes on after one has the same batches as one that was never
    interrupted.
    """
    collector, started, images = Collector(net.branch.branch.embedding_dim), time.monotonic(), 0
    for step in find_people(net, sources, settings, batch, first_frames):
        for found in step:
            collector.add(found)
        tally = collector.take_tally()
        images += tally.images
        is_due = time.monotonic() - started >= part_seconds or images >= _PART_IMAGES
        yield tally, collector.part() if is_due else None
        if is_due:
            started, images = time.monotonic(), 0
    yield Tally(), collector.part()


@dataclass
class Collector:
    """Collects what was found until it is written as a part."""

    dimensions: int
    tally: Tally = Tally()
    _sources: list[dict[str, Any]] = field(default_factory=list)
    _people: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in PEOPLE_SCHEMA.names})
    _embeddings: list[np.ndarray] = field(default_factory=list)

    def add(self, found: Found) -> None:
        """One step: the people of an image, or the end of a file."""
        step, people = found.read, found.people
        if step.fault is not None:
            self.tally += Tally(faults=(step.fault,), skipped=0 if step.sha256 else 1)
        if not step.sha256:
            return
        row = self._row_of(found)
        if people is not None:
            self.tally += Tally(images=1, people=len(people.boxes))
            row["frames"] += 1
            self._add_people(found, len(self._sources) - 1)
        row["next_frame"] = None if step.ends or step.frame is None else step.frame + 1

    def part(self) -> Part:
        """What was collected; the collector is empty again."""
        columns = {
            name: pa.array(values, PEOPLE_SCHEMA.field(name).type) for name, values in self._people.items()
        }
        part = Part(
            sources=pa.Table.from_pylist(self._sources, schema=SOURCES_SCHEMA),
            people=pa.table(columns, schema=PEOPLE_SCHEMA),
            embeddings=np.concatenate([np.zeros((0, self.dimensions), np.float16), *self._embeddings]),
        )
        self._sources, self._embeddings = [], []
        self._people = {name: [] for name in PEOPLE_SCHEMA.names}
        return part

    def take_tally(self) -> Tally:
        """What was done since the last call."""
        tally, self.tally = self.tally, Tally()
        return tally

    def _row_of(self, found: Found) -> dict[str, Any]:
        step = found.read
        source = step.source
        if not self._sources or (self._sources[-1]["place"], self._sources[-1]["image"]) != source.key:
            self._sources.append(
                {
                    "place": source.place,
                    "image": source.image,
                    "kind": source.kind,
                    "bytes": source.bytes,
                    "mtime_ns": source.mtime_ns,
                    "sha256": step.sha256,
                    "frames": 0,
                    "next_frame": None,
                    "camera": camera_of(source.image, video=source.kind == "video"),
                    "time": step.time,
                    "fault": step.fault,
                }
            )
        self._sources[-1]["fault"] = step.fault
        return self._sources[-1]

    def _add_people(self, found: Found, row: int) -> None:
        step, people, source = found.read, found.people, self._sources[row]
        assert people is not None
        count = len(people.boxes)
        columns = self._people
        for at, name in enumerate(COORDINATES):
            columns[name] += people.boxes[:, at].tolist()
        columns["score"] += people.scores.tolist()
        columns["source"] += [row] * count
        for name in ("place", "image", "camera"):
            columns[name] += [source[name]] * count
        time = step.time
        if time is not None and step.time_code is not None:
            time += timedelta(seconds=step.time_code)
        for name, value in (("time", time), ("frame", step.frame), ("time_code", step.time_code)):
            columns[name] += [value] * count
        columns["track"] += [None] * count
        embeddings = people.embeddings.half().cpu().numpy()
        if not np.isfinite(embeddings).all():
            raise ConfigError(
                f"{step.source.path}: an embedding does not fit float16; "
                "train the branch with normalise: true to index its people"
            )
        self._embeddings.append(embeddings)
