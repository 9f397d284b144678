"""Detector and branch in one step: the losses, which layers they train, and the same bytes after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.nn import functional as F

from personsearch_core.data.loader import TrainingBatch, training_batches
from personsearch_core.data.sampling import TrainingSet, TrainingStream
from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import UNLABELLED
from personsearch_core.losses.build import build_objective
from personsearch_core.losses.objective import Batch
from personsearch_core.models.branch import build_branch
from personsearch_core.models.detector import Detector, build_detector
from personsearch_core.models.weights import load_branch
from personsearch_core.pooling.rois import pool_shared_map
from personsearch_core.recipes import (
    BranchModel,
    Compute,
    DetectorAugmentation,
    DetectorRecipe,
    DetectorSchedule,
    DetectorTraining,
    JointRecipe,
    Objective,
    RoiRecipe,
)
from personsearch_core.training.detector import train_detector
from personsearch_core.training.detector_process import DetectorResult
from personsearch_core.training.joint import JointBranch
from personsearch_core.training.loop import TrainingStopped
from tests.personsearch_core.scene_files import TINY, write_scenes

ROI = RoiRecipe(variant="j3", roi_height=8, roi_width=4)


def joint(**fields: Any) -> JointRecipe:
    return JointRecipe(roi=ROI, branch=BranchModel(embedding_dim=16), **fields)


def recipe(**training: Any) -> DetectorRecipe:
    options = {
        "steps": 6,
        "batch_size": 4,
        "lr": 0.01,
        "schedule": DetectorSchedule(warmup_steps=2),
        **training,
    }
    return DetectorRecipe(
        model=TINY,
        training=DetectorTraining(**options),
        augmentation=DetectorAugmentation(scale_jitter=(0.8, 1.2)),
    )


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingSet]:
    """Six scenes with the identities p0 to p3 and unknown people, and three whose identities do not count."""
    root = tmp_path_factory.mktemp("train")
    scenes = [*write_scenes(root / "a", 6, people=4), *write_scenes(root / "none", 1, people=0, source="a-")]
    return [
        TrainingSet(scenes, repeat=1, identities=True),
        TrainingSet(write_scenes(root / "b", 3, source="b", seed=1), repeat=1),
    ]


def train(
    folder: Path, entries: list[TrainingSet], wanted: JointRecipe | None, **options: Any
) -> DetectorResult:
    training = options.pop("training", {})
    return train_detector(recipe(**training), entries, [], folder, device="cpu", joint=wanted, **options)


def initial(
    entries: list[TrainingSet], wanted: JointRecipe
) -> tuple[Detector, TrainingStream, TrainingBatch]:
    """The detector before the first step, and the first batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = build_detector(TINY).train()
    stream = TrainingStream(entries, 0)
    return detector, stream, next(training_batches(stream, recipe(), 0, 1))


def test_the_loss_is_the_sum_of_both(tmp_path: Path, entries: list[TrainingSet]) -> None:
    """Of the first batch, computed part by part: ground-truth boxes in the shared map, through the branch."""
    wanted = joint(weight=0.5, objectives=(Objective(kind="identity_softmax"),))
    train(tmp_path, entries, wanted, training={"steps": 1})
    (row,) = pq.read_table(tmp_path / "history.parquet").to_pylist()
    detector, stream, batch = initial(entries, wanted)
    classification, regression, _ = detector.losses(batch.images, batch.targets)
    branch = build_branch("j3", TINY, wanted.branch, detector.state_dict(), 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        objective = build_objective(wanted.objectives, len(stream.identities), 16)
    rois, labels = [], []
    for target in batch.scenes:
        people = torch.empty(0, dtype=torch.int64) if target.people is None else target.people[~target.ignore]
        rois.append((target.boxes[~target.ignore][: len(people)] / 8).numpy())
        labels.append(people)
    maps = detector.shared_maps(batch.images, "j3")
    embeddings = branch(pool_shared_map(maps, rois, ROI).contiguous())
    reid = objective(Batch(embeddings, torch.cat(labels))).loss.detach()
    detection = (classification.mean() + regression.mean()).detach()
    assert row["reid"] == pytest.approx(float(reid), rel=1e-4) and reid > 0.1
    assert row["loss"] == pytest.approx(float(detection + 0.5 * reid), rel=1e-4)
    assert row["classification"] + row["regression"] == pytest.approx(float(detection), rel=1e-4)


@pytest.mark.parametrize("shared", [True, False])
def test_the_reid_loss_trains_the_shared_layers_or_not(entries: list[TrainingSet], shared: bool) -> None:
    """J3 shares C1 to C3; no re-ID gradient goes into C4, C5, the pyramid and the heads in any case."""
    wanted = joint(shared_gradients=shared, objectives=(Objective(kind="batch_hard_triplet"),))
    detector, stream, batch = initial(entries, wanted)
    half = JointBranch(wanted, detector, len(stream.identities), Compute(), 0)
    found = half(detector.shared_maps(batch.images, "j3"), batch.scenes)
    assert found is not None
    found.term.loss.backward()
    trained = {
        name for name, each in detector.named_parameters() if each.grad is not None and each.grad.any()
    }
    tops = {name.removeprefix("backbone.body.").partition(".")[0] for name in trained}
    assert tops == ({"conv1", "bn1", "layer1", "layer2"} if shared else set())
    assert all(each.grad is not None for each in half.branch.parameters())


def test_only_people_of_entries_with_identities_are_learnt(entries: list[TrainingSet]) -> None:
    stream = TrainingStream(entries, 0)
    assert list(stream.identities) == [("a", f"p{n}") for n in range(4)]
    batch = next(training_batches(stream, recipe(batch_size=10), 0, 1))
    for entry, target in zip(batch.entries.tolist(), batch.scenes, strict=True):
        assert (target.people is None) == (entry == 1)
    half = JointBranch(joint(), build_detector(TINY), 4, Compute(), 0)
    rois, labels = half._people(batch.scenes)
    counts = [0 if target.people is None else int((~target.ignore).sum()) for target in batch.scenes]
    assert [len(each) for each in rois] == counts
    assert UNLABELLED in labels.tolist() and labels.max() == 3


def test_without_gradients_into_shared_layers_the_detector_is_the_same(
    tmp_path: Path, entries: list[TrainingSet]
) -> None:
    plain, short = [replace(entry, identities=False) for entry in entries], {"steps": 3}
    train(tmp_path / "alone", plain, None, training=short)
    train(tmp_path / "apart", entries, joint(shared_gradients=False), training=short)
    train(tmp_path / "together", entries, joint(), training=short)
    bytes_of = {
        name: (tmp_path / name / "detector.safetensors").read_bytes()
        for name in ("alone", "apart", "together")
    }
    assert bytes_of["alone"] == bytes_of["apart"] != bytes_of["together"]


def test_stopped_anywhere_gives_the_same_bytes(tmp_path: Path, entries: list[TrainingSet]) -> None:
    """OIM's table and a classifier are part of the state; two batches per step."""
    wanted = joint(objectives=(Objective(kind="oim", queue=5), Objective(kind="identity_softmax")))
    options = {"training": {"steps": 4, "batch_size": 3, "accumulate": 2}}
    train(tmp_path / "whole", entries, wanted, **options)
    for _ in range(10):
        calls = iter(range(1000))
        try:
            train(tmp_path / "pieces", entries, wanted, should_stop=lambda c=calls: next(c) == 2, **options)
            break
        except TrainingStopped:
            continue
    for name in (
        "detector.safetensors",
        "branch.safetensors",
        "branch_untrained.safetensors",
        "history.parquet",
    ):
        assert (tmp_path / "pieces" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_the_branch_learns(tmp_path: Path, entries: list[TrainingSet]) -> None:
    wanted = joint(objectives=(Objective(kind="identity_softmax"),))
    train(
        tmp_path, entries, wanted, training={"steps": 24, "batch_size": 3, "optimiser": "adamw", "lr": 0.003}
    )
    history = pq.read_table(tmp_path / "history.parquet").to_pandas()
    assert history["reid"][-5:].mean() < 0.7 * history["reid"][:5].mean()
    branches = [load_file(tmp_path / f"branch{suffix}.safetensors") for suffix in ("", "_untrained")]
    assert any(not torch.equal(value, branches[1][name]) for name, value in branches[0].items())
    embeddings = load_branch(tmp_path / "branch.safetensors").embed(torch.rand(3, 128, 8, 4))
    torch.testing.assert_close(F.normalize(embeddings), embeddings)


def test_what_cannot_be_trained_jointly_is_refused(tmp_path: Path, entries: list[TrainingSet]) -> None:
    nobody = [replace(entry, identities=False) for entry in entries]
    with pytest.raises(PersonSearchError, match="at least two identities"):
        train(tmp_path, nobody, joint())
    with pytest.raises(PersonSearchError, match="one device, not 2"):
        train(tmp_path, entries, joint(), devices=2)
    with pytest.raises(PersonSearchError, match="use keep: last with joint training"):
        train_detector(recipe(keep="best"), entries, entries[0].scenes, tmp_path, device="cpu", joint=joint())
    for roi, message in (
        (RoiRecipe(variant="disj"), "disj has not"),
        (RoiRecipe(margin=0.1), "set roi.margin to 0"),
    ):
        with pytest.raises(ValidationError, match=message):
            JointRecipe(roi=roi)
