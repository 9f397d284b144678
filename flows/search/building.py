"""Building and updating an index: only what is new or has changed is searched for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.errors import ConfigError
from flows.search.changes import Changes, compare, restamped
from flows.search.committing import alone, commit
from flows.search.embeddings import map_embeddings
from flows.search.layout import (
    DESCRIPTION,
    EMBEDDINGS,
    MODEL,
    PEOPLE,
    PEOPLE_SCHEMA,
    SOURCES,
    SOURCES_SCHEMA,
    Description,
    IndexedPlace,
    Settings,
    is_index,
    read_description,
)
from flows.search.merging import merge
from flows.search.model import GivenModel, given_model, save_once
from flows.search.segments import BUILDING, Part, Segments, still_to_read
from flows.search.sources import Key, SceneFile, located, merged_places, place_of, scan
from flows.search.verification import require_whole
from storage.digests import digest_json

if TYPE_CHECKING:
    from flows.search.collecting import Tally

BATCH = 8
Progress = Callable[[int, int, float], None]
"""(images done, images in all, images per second)"""
NO_PROGRESS: Progress = lambda done, total, rate: None  # noqa: E731


@dataclass(frozen=True)
class Where:
    """Where people are searched for: on a device of this machine, or by the workers of a Dask cluster.

    part_seconds: how much work a kill may cost.
    """

    device: str = "auto"
    batch: int = BATCH
    dask: str | None = None
    workers: int | None = None
    part_seconds: float = 15.0


@dataclass(frozen=True)
class IndexUpdate:
    """What an update did, in files, images (a video has many), people and seconds; and what there is now."""

    added: int
    changed: int
    unchanged: int
    dropped: int
    barred: int
    skipped: int
    images: int
    people: int
    seconds: float
    faults: tuple[str, ...]
    files_in_all: int
    people_in_all: int

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.images else 0.0


def build_index(
    folder: Path,
    scenes: Sequence[Path] = (),
    model: GivenModel | None = None,
    *,
    settings: Settings | None = None,
    roots: Mapping[str, Path] | None = None,
    where: Where | None = None,
    keep_model: bool = True,
    progress: Progress = NO_PROGRESS,
) -> IndexUpdate:
    """Build an index, or bring it up to date: new and changed files are searched, missing ones drop out.

    After a kill, the same call continues and ends with the same index.

    Parameters
    ----------
    folder
        The index; made if needed.
    scenes
        Images, videos, lists of files, and folders of them. By default all that were given before.
    model
        Needed for a new index; for one that exists it must be the same.
    settings
        How people are found; for a new index by default as the model's config says.
    roots
        Where places of scenes are now, by their old paths.
    where
        The device or the Dask cluster.
    keep_model
        Whether the index gets a copy of the model.
    progress
        Called after each batch.

    Raises
    ------
    ConfigError
        If the folder holds something else or an index of another model or other settings, if nothing is
        there to index, or if another process updates it.
    """
    given = [place_of(path, folder) for path in scenes]
    _require_place(folder)
    with alone(folder):
        description = _described(folder, model, settings)
        known = [located(place, folder, roots or {}) for place in description.places]
        places = merged_places(known, given)
        if not places:
            raise ConfigError("nothing to index: name folders, lists, images or videos")
        if keep_model and model is not None:
            save_once(model, folder / MODEL)
        scanned = _numbers(places, given or known)
        files, faults = scan(places, scanned)
        old = read_part(folder, description)
        changes = compare(files, old.sources, scanned, description.removed)
        search = _Search(description.settings, where or Where(), model or given_model(folder / MODEL))
        segments = Segments(folder, digest_json([description.model, search.settings.model_dump()]))
        tally, seconds = search.write_parts(folder / MODEL, changes.todo, segments, progress)
        described = put_in_place(folder, description, places, [old, *segments.read()], changes)
        segments.remove()
    return _outcome(changes, tally, faults, seconds, described)


@dataclass(frozen=True)
class _Search:
    settings: Settings
    where: Where
    model: GivenModel

    def write_parts(
        self, folder: Path, sources: Sequence[SceneFile], segments: Segments, progress: Progress
    ) -> tuple[Tally, float]:
        """Search the files that no finished part has, writing parts as they come; and the seconds it took."""
        from flows.search.collecting import Tally  # loads torch

        rest, first_frames = still_to_read(sources, segments.read())
        if not rest:
            return Tally(), 0.0
        parts = self._parts(folder, rest, first_frames)
        expected, done, started, seconds = self._expected_images(rest), Tally(), time.monotonic(), 0.0
        for tally, part in parts:
            done += tally
            if part is not None and len(part.sources):
                segments.write(part)
            seconds = time.monotonic() - started
            progress(done.images + done.skipped, max(expected, done.images), done.images / seconds)
        return done, seconds

    def _parts(
        self, folder: Path, sources: Sequence[SceneFile], first_frames: Mapping[Key, int]
    ) -> Iterator[tuple[Tally, Part | None]]:
        where = self.where
        if where.dask is None and where.workers is None:
            from flows.search.collecting import found_parts

            net = self.model.load(where.device)
            return found_parts(net, sources, self.settings, where.batch, first_frames, where.part_seconds)
        from flows.search.dask_finding import find_on_dask  # loads Dask

        return find_on_dask(
            folder.absolute(),
            sources,
            self.settings,
            where.batch,
            first_frames,
            device=where.device,
            address=where.dask,
            workers=where.workers,
        )

    def _expected_images(self, sources: Sequence[SceneFile]) -> int:
        from flows.search.video import expected_frames

        return sum(
            1 if source.kind == "image" else expected_frames(source.path, self.settings) for source in sources
        )


def read_part(folder: Path, description: Description) -> Part:
    """The index as it is, as one part; an empty one where it is new. Raises ConfigError if it is damaged."""
    if not description.content:
        nothing = np.zeros((0, description.dimensions), np.float16)
        return Part(SOURCES_SCHEMA.empty_table(), PEOPLE_SCHEMA.empty_table(), nothing)
    require_whole(folder)
    blocks = map_embeddings(folder / EMBEDDINGS, description.content)
    people = pq.read_table(folder / PEOPLE, schema=PEOPLE_SCHEMA)
    rows = blocks[0] if len(blocks) == 1 else np.concatenate(blocks) if blocks else None
    embeddings = np.zeros((0, description.dimensions), np.float16) if rows is None else rows
    return Part(pq.read_table(folder / SOURCES, schema=SOURCES_SCHEMA), people, embeddings)


def put_in_place(
    folder: Path,
    description: Description,
    places: Sequence[IndexedPlace],
    parts: Sequence[Part],
    changes: Changes,
) -> Description:
    """Merge the last index and its new parts, and replace it, unless it stays as it is."""
    old = parts[0]
    stamped = restamped(old.sources, changes.kept)
    merged = merge(Part(stamped, old.people, old.embeddings), changes.kept, parts[1:], changes.found)
    described = description.model_copy(
        update={
            "places": tuple(places),
            "sources": len(merged.sources),
            "people": len(merged.people),
            "content": _content(description, places, merged.sources),
        }
    )
    if described != description or not stamped.equals(old.sources):
        commit(folder, merged, described)
    return described


def _content(description: Description, places: Sequence[IndexedPlace], sources: pa.Table) -> str:
    columns = ("place", "image", "sha256", "frames")
    settings = description.settings.model_dump()
    listed = [sources[name].to_pylist() for name in columns]
    return digest_json([description.model, settings, [place.from_index for place in places], listed])


def _described(folder: Path, model: GivenModel | None, settings: Settings | None) -> Description:
    """The description of the index, or of a new one; ConfigError if model or settings differ from it."""
    if not (folder / DESCRIPTION).is_file():
        if model is None:
            raise ConfigError(f"{folder} is a new index: name the model that finds the people (--model)")
        return Description(
            model=model.digest, dimensions=model.dimensions, settings=settings or model.settings
        )
    description = read_description(folder)
    if model is not None and model.digest != description.model:
        raise ConfigError(
            f"{folder} was built with another model, whose embeddings do not compare with this one's: "
            "name a new folder"
        )
    if settings is not None and settings != description.settings:
        was = description.settings.model_dump()
        name, value = next((n, v) for n, v in settings.model_dump().items() if v != was[n])
        raise ConfigError(f"{folder} was built with {name} {was[name]}, not {value}: name a new folder")
    return description


def _require_place(folder: Path) -> None:
    """Raise ConfigError if the folder holds files and no index."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name a folder for the index")
    if folder.is_dir() and not is_index(folder):
        ours = {BUILDING, MODEL, ".next", ".lock"}
        names = (path.name for path in folder.iterdir() if path.name not in ours)
        strangers = sorted(name for name in names if not name.startswith(f".{MODEL}."))  # half a model
        if strangers:
            raise ConfigError(f"{folder} holds {strangers[0]} and no index: name a new or empty folder")


def _numbers(places: Sequence[IndexedPlace], chosen: Sequence[IndexedPlace]) -> list[int]:
    paths = {place.path for place in chosen}
    return [number for number, place in enumerate(places) if place.path in paths]


def _outcome(
    changes: Changes, tally: Tally, faults: Sequence[str], seconds: float, described: Description
) -> IndexUpdate:
    return IndexUpdate(
        added=changes.added,
        changed=len(changes.todo) - changes.added,
        unchanged=len(changes.kept),
        dropped=changes.dropped,
        barred=changes.barred,
        skipped=tally.skipped + len(faults),
        images=tally.images,
        people=tally.people,
        seconds=seconds,
        faults=(*faults, *tally.faults),
        files_in_all=described.sources,
        people_in_all=described.people,
    )
