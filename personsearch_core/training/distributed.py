"""Data-parallel training of the detector: its job as JSON, and each process's share of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from personsearch_core.data.sampling import TrainingSet
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.recipes import DetectorRecipe
from personsearch_core.training.detector_process import DetectorResult, train_share
from personsearch_core.training.launch import train_together
from personsearch_core.training.loop import LoopSettings, Progress
from personsearch_core.training.machines import Machines
from personsearch_core.training.ranks import Rank

SHARE = f"{__name__}:train_rank"
LOOKING_THREADS = 16
"""A file system of the network answers many questions at a time."""


def train_in_parallel(
    recipe: DetectorRecipe,
    entries: Sequence[TrainingSet],
    validation: Sequence[Scene],
    work_dir: Path,
    *,
    device: torch.device,
    devices: int,
    machines: Machines | None = None,
    settings: LoopSettings | None = None,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> DetectorResult:
    """`train_detector` in `devices` processes: on this machine's GPUs from `device` on, or on its CPU; and in
    as many on each of the other `machines`.

    Gradients equal those of one process with the same batches. Raises what `train_together` raises.
    """
    if device.type == "cpu" and recipe.model.norm == "batch":
        raise PersonSearchError(
            "model.norm: batch cannot be synchronised between processes on a CPU: use group, frozen_batch "
            "or devices: 1"
        )
    result = train_together(
        SHARE,
        _job(recipe, entries, validation),
        work_dir,
        device=device,
        devices=devices,
        machines=machines,
        settings=settings,
        progress=progress,
        should_stop=should_stop,
    )
    return DetectorResult(**result)


def train_rank(job: dict[str, Any], rank: Rank) -> dict[str, Any]:
    """One process's share of a job."""
    entries = [
        TrainingSet(**{**entry, "scenes": [_scene_from_json(scene) for scene in entry["scenes"]]})
        for entry in job["entries"]
    ]
    validation = [_scene_from_json(scene) for scene in job["validation"]]
    if rank.checks_files:
        _require_images([scene for entry in entries for scene in entry.scenes] + validation)
    result = train_share(
        DetectorRecipe.model_validate(job["recipe"]),
        entries,
        validation,
        rank.work_dir,
        device=rank.device,
        group=rank.group,
        settings=rank.settings,
        progress=rank.progress,
        should_stop=rank.should_stop,
    )
    return asdict(result)


def _require_images(scenes: Sequence[Scene]) -> None:
    """Raises PersonSearchError for the first image that is not on this machine."""
    with ThreadPoolExecutor(LOOKING_THREADS) as pool:
        for scene, found in zip(
            scenes, pool.map(lambda each: Path(each.path).is_file(), scenes), strict=True
        ):
            if not found:
                raise PersonSearchError(
                    f"image {scene.path} does not exist: all machines of a training need the images at the "
                    "same paths"
                )


def _job(
    recipe: DetectorRecipe, entries: Sequence[TrainingSet], validation: Sequence[Scene]
) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "entries": [
            {
                "scenes": [_scene_as_json(scene) for scene in entry.scenes],
                "proportion": entry.proportion,
                "repeat": entry.repeat,
                "choose": entry.choose,
            }
            for entry in entries
        ],
        "validation": [_scene_as_json(scene) for scene in validation],
    }


def _scene_as_json(scene: Scene) -> dict[str, Any]:
    return {**vars(scene), "boxes": scene.boxes.tolist(), "ignore": scene.ignore.tolist()}


def _scene_from_json(values: dict[str, Any]) -> Scene:
    boxes = np.array(values["boxes"], dtype=np.float32).reshape(-1, 4)
    return Scene(
        **{
            **values,
            "boxes": boxes,
            "ignore": np.array(values["ignore"], dtype=bool),
            "box_ids": tuple(values["box_ids"]),
            "person_ids": tuple(values["person_ids"]),
        }
    )
