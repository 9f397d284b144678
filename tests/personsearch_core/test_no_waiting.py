"""On a device, the host waits for nothing in a training step, nor in inference up to suppression.

Shown on the meta device (see `on_meta`), with the code that a GPU runs; `test_cuda.py` asks CUDA itself.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from personsearch_core.boxes import place_image
from personsearch_core.data.sampling import TrainingSet, TrainingStream
from personsearch_core.models.detector import build_detector
from personsearch_core.pooling.rois import pool_shared_map
from personsearch_core.pooling.stored import stored_rows
from personsearch_core.recipes import (
    BranchModel,
    DetectorAugmentation,
    DetectorRecipe,
    DetectorTraining,
    JointRecipe,
    Objective,
    RoiRecipe,
)
from personsearch_core.recipes.reid import OBJECTIVE_FIELDS
from personsearch_core.training.detector_process import _Training
from personsearch_core.training.group import Alone
from tests.personsearch_core.on_meta import META, no_waiting_copies, without_autocast
from tests.personsearch_core.scene_files import TINY, write_scenes
from tests.personsearch_core.training.reid_trainings import branch_training

WAITING = {"metric_learning"}
"""Kinds of objectives whose packages pick what they compare by values."""
COLOURS = DetectorAugmentation(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1)


def test_the_meta_device_tells_what_would_wait() -> None:
    values = torch.zeros(3, device=META)
    for waits in (
        lambda: values.sum().item(),
        lambda: values[values > 0],
        lambda: values.nonzero(),
        lambda: values.cpu(),
        lambda: values + torch.zeros(3),
        lambda: torch.zeros(3).to(META),
        lambda: torch.tensor([1.0, 2.0], device=META),
        lambda: values.copy_(torch.zeros(3)),
    ):
        with pytest.raises((RuntimeError, NotImplementedError, AssertionError)), no_waiting_copies():
            waits()
    with no_waiting_copies():
        assert (torch.zeros(3).to(META, non_blocking=True) + values * torch.tensor(2.0)).is_meta


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2, "gradient_clip": 1.0}])
def test_a_detectors_step_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    """Batch, colours, losses, gradients, optimiser, metrics."""
    without_autocast(monkeypatch)
    entries = [TrainingSet(write_scenes(tmp_path, 2, source=name), repeat=1) for name in ("a", "b")]
    wanted = DetectorRecipe(
        model=TINY,
        augmentation=COLOURS,
        training=DetectorTraining.model_validate({"steps": 2, "batch_size": 3, **settings}),
    )
    with closing(_Training(wanted, TrainingStream(entries, 0), [], META, Alone())) as training:
        training.step(0)  # anchors, moments
        with no_waiting_copies():
            metrics = training.step(1)
    assert {name for name, value in metrics.items() if isinstance(value, float)} == {"rate"}
    assert metrics["gradient_norm"].is_meta and metrics["loss/b"].is_meta  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["oim", "batch_hard_triplet"])
def test_a_joint_step_does_not_wait(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector's, and its people through the branch."""
    without_autocast(monkeypatch)
    entries = [TrainingSet(write_scenes(tmp_path, 4, people=4), repeat=1, identities=True)]
    wanted = DetectorRecipe(model=TINY, training=DetectorTraining(steps=2, batch_size=3))
    joint = JointRecipe(
        roi=RoiRecipe(variant="j3", roi_height=8, roi_width=4),
        branch=BranchModel(embedding_dim=8, initial_weights="random"),
        objectives=(Objective(kind=kind),),
    )
    with closing(_Training(wanted, TrainingStream(entries, 0), [], META, Alone(), joint)) as training:
        training.step(0)
        with no_waiting_copies():
            metrics = training.step(1)
    assert metrics["reid"].is_meta and metrics[f"loss/{kind}"].is_meta  # type: ignore[union-attr]


def test_inference_does_not_wait_before_suppression() -> None:
    detector = build_detector(TINY).eval().to(META)
    images = torch.zeros(2, 3, TINY.image_height, TINY.image_width, dtype=torch.uint8, device=META)
    placements = [place_image(120, 80, TINY.image_width, TINY.image_height)]
    rois = [np.array([[1, 2, 9, 18]], np.float32), np.empty((0, 4), np.float32)]
    with torch.inference_mode():
        detector.candidates(images, placements, "j3")
        with no_waiting_copies():
            candidates, shared = detector.candidates(images, placements, "j3")
            assert shared is not None
            rows = stored_rows(pool_shared_map(shared, rois, RoiRecipe()), "float16", "")
    assert candidates.boxes.is_meta and len(candidates.boxes) == 2
    assert rows.values.shape[0] == 1 and rows.values.dtype == torch.float16


@pytest.mark.parametrize("kind", sorted(OBJECTIVE_FIELDS.keys() - WAITING))
def test_a_branchs_step_does_not_wait(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, gradients, optimiser, memories, metrics; those of each dataset, too.

    The meta device has no fused optimiser.
    """
    without_autocast(monkeypatch)
    with closing(branch_training({"kind": kind}, META, fused_optimiser=False)) as training:
        training.step(0)
        with no_waiting_copies():
            metrics = training.step(1)
    numbers = {name for name, value in metrics.items() if not isinstance(value, Tensor)}
    assert numbers == {"rate", "phase"}
    assert all(value.is_meta for value in metrics.values() if isinstance(value, Tensor))
    assert metrics.keys() >= {"loss", "loss/a", "loss/b", f"loss/{kind}"}


@pytest.mark.parametrize("kind", sorted(WAITING))
def test_what_is_said_to_wait_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_autocast(monkeypatch)
    with (
        closing(branch_training({"kind": kind, "loss": "CircleLoss"}, META)) as training,
        pytest.raises(RuntimeError, match="meta"),
    ):
        training.step(0)
