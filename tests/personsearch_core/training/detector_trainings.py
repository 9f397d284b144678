"""Small trainings of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from personsearch_core.data.sampling import TrainingSet
from personsearch_core.recipes import (
    DetectorAugmentation,
    DetectorModel,
    DetectorRecipe,
    DetectorSchedule,
    DetectorTraining,
)
from personsearch_core.training.detector import train_detector
from personsearch_core.training.loop import LoopSettings
from tests.personsearch_core.scene_files import TINY, write_scenes

TRAINING: dict[str, Any] = {
    "steps": 6,
    "batch_size": 4,
    "lr": 0.01,
    "schedule": DetectorSchedule(warmup_steps=2),
}


def recipe(model: DetectorModel = TINY, **training: Any) -> DetectorRecipe:
    return DetectorRecipe(
        model=model,
        training=DetectorTraining(**{**TRAINING, **training}),
        augmentation=DetectorAugmentation(scale_jitter=(0.8, 1.2), brightness=0.2),
    )


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingSet]:
    return write_entries(tmp_path_factory.mktemp("train"))


def write_entries(root: Path) -> list[TrainingSet]:
    empty = write_scenes(root / "none", 1, people=0, source="a")
    return [
        TrainingSet([*write_scenes(root / "a", 5), *empty], repeat=1),
        TrainingSet(write_scenes(root / "b", 4, source="b", seed=1), choose=3),
    ]


def weights(directory: Path) -> bytes:
    return (directory / "detector.safetensors").read_bytes()


def train_with_checkpoints(entries: Sequence[TrainingSet], work_dir: Path) -> None:
    """A training with a checkpoint after each step, for a process of its own."""
    torch.set_num_threads(1)
    settings = LoopSettings(checkpoint_steps=1, progress_seconds=0)
    train_detector(recipe(), entries, [], work_dir, device="cpu", settings=settings)
