"""Finding people by the workers of a Dask cluster that see the same files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from flows.search.collecting import Tally, found_parts
from flows.search.layout import Settings
from flows.search.model import load_exported
from flows.search.segments import Part
from flows.search.sources import Key, SceneFile
from flows.stages.dask_clients import dask_client, results_of

_IMAGES_A_TASK = 64


def find_on_dask(
    model: Path,
    sources: Sequence[SceneFile],
    settings: Settings,
    batch: int,
    first_frames: Mapping[Key, int],
    *,
    device: str,
    address: str | None,
    workers: int | None,
) -> Iterator[tuple[Tally, Part | None]]:
    """`found_parts` on Dask: a task has 64 images, or one video.

    Raises StageError when no scheduler answers at `address`, ConnectionError when workers die repeatedly.
    """
    with dask_client(address, workers) as client:
        futures = [
            client.submit(_find, model, task, settings, batch, dict(first_frames), device, pure=False)
            for task in _tasks(sources)
        ]
        yield from results_of(futures, client)


def _tasks(sources: Sequence[SceneFile]) -> Iterator[list[SceneFile]]:
    images = [source for source in sources if source.kind == "image"]
    for start in range(0, len(images), _IMAGES_A_TASK):
        yield images[start : start + _IMAGES_A_TASK]
    yield from ([source] for source in sources if source.kind == "video")


def _find(
    model: Path,
    sources: Sequence[SceneFile],
    settings: Settings,
    batch: int,
    first_frames: Mapping[Key, int],
    device: str,
) -> tuple[Tally, Part | None]:
    done, whole = Tally(), None
    for tally, part in found_parts(
        _net(model, device), sources, settings, batch, first_frames, part_seconds=float("inf")
    ):
        done += tally
        whole = part or whole
    return done, whole


_net = lru_cache(maxsize=1)(load_exported)
"""The model in a worker, loaded once."""
