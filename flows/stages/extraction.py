"""Pooling the features of a view, shard by shard: in this process, or split over Dask workers.

A shard's rows depend on the shard alone and one writer owns it, so it does not matter who computes which;
a shard that two workers computed, because one of them seemed dead, is the same shard.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from flows.config.devices import stage_device
from flows.config.sections import Processors
from flows.plan.views import ViewSpec, read_scenes
from flows.stages.dask_clients import dask_client, results_of
from flows.stages.packing import codec_in
from personsearch_core.models.detector import Detector
from personsearch_core.models.weights import load_detector
from personsearch_core.pooling.extraction import RowPlan, extract_shards, feature_rows
from personsearch_core.recipes import FeaturesRecipe
from storage.feature_store import FeatureWriter, create_features

SHARDS_A_TASK = 4
"""Enough for a worker to read ahead, few enough that a killed one loses little."""


@dataclass(frozen=True)
class Extraction:
    """What is extracted, as plain data that a worker on another machine understands.

    Paths must mean the same on every worker. Worker i computes on the i-th of `devices`, in turn; `threads`
    are for each worker.
    """

    recipe: FeaturesRecipe
    snapshot: str
    view: ViewSpec
    root: str
    detector: str | None
    devices: tuple[str, ...]
    threads: int | None
    target: str
    attributes: str
    """JSON: what the store says of itself."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """An extraction with everything loaded."""

    detector: Detector | None
    plan: RowPlan


@lru_cache(maxsize=1)
def prepare(extraction: Extraction) -> Prepared:
    """Load the detector and plan the rows; once for each process."""
    scenes = read_scenes(Path(extraction.snapshot), extraction.view, Path(extraction.root))
    device = stage_device(Processors(device=extraction.devices[0], threads=extraction.threads))
    detector = load_detector(extraction.detector).to(device).eval() if extraction.detector else None
    return Prepared(detector, feature_rows(extraction.recipe, scenes, detector))


def open_writer(extraction: Extraction, ready: Prepared) -> FeatureWriter:
    """The store's writer; the first to come makes the store, the others find it."""
    codec = codec_in(Path(extraction.target), extraction.recipe, ready.plan)
    return create_features(
        extraction.target,
        len(ready.plan),
        ready.plan.row_shape,
        extraction.recipe.dtype,
        compression=extraction.recipe.compression,
        attributes=json.loads(extraction.attributes),
        codec=codec,
    )


def extract(extraction: Extraction, shards: Sequence[int]) -> Generator[int]:
    """Compute and write the given shards of a store that exists; yields each when it is on its way.

    Who closes the generator waits until all that were yielded are in the store.
    """
    ready = prepare(extraction)
    plan = ready.plan
    with open_writer(extraction, ready) as writer:
        for shard, block in extract_shards(ready.detector, extraction.recipe, plan, shards):
            writer.write(plan.rows_of(shard).start, block)
            yield shard


def extract_on_dask(
    extraction: Extraction, shards: Sequence[int], *, workers: int | None, address: str | None
) -> Generator[int]:
    """The same, split over local worker processes or the workers of an existing scheduler.

    A worker that is killed costs time: its shards are computed again by another. Raises StageError when no
    scheduler answers at `address`, ConnectionError when workers die again and again.
    """
    parts = [list(shards[start : start + SHARDS_A_TASK]) for start in range(0, len(shards), SHARDS_A_TASK)]
    with dask_client(address, workers) as client:
        futures = [client.submit(_extract_all, extraction, part, pure=False) for part in parts]
        for done in results_of(futures, client):
            yield from done


def _extract_all(extraction: Extraction, shards: Sequence[int]) -> list[int]:
    from distributed import get_worker

    own = device_of_worker(get_worker().name, extraction.devices)
    return list(extract(replace(extraction, devices=(own,)), shards))


def device_of_worker(name: object, devices: Sequence[str]) -> str:
    """Local workers are numbered from 0; those of a scheduler elsewhere have any name, and take the first."""
    return devices[name % len(devices)] if isinstance(name, int) else devices[0]
