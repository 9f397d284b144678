"""Training a detector: what it writes, resuming to the byte, and what goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from personsearch_core.data.sampling import TrainingSet
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.detector import build_detector
from personsearch_core.models.states import load_weights
from personsearch_core.models.weights import load_detector
from personsearch_core.recipes import (
    Compute,
    DetectorModel,
    DetectorSchedule,
)
from personsearch_core.training import validation
from personsearch_core.training.detector import train_detector
from personsearch_core.training.loop import (
    RESUME_ONLY,
    LoopSettings,
    NonFiniteError,
    TrainingStopped,
)
from tests.forking import kill_at_step, start
from tests.personsearch_core.scene_files import TINY, write_scenes
from tests.personsearch_core.training.conftest import one_thread
from tests.personsearch_core.training.detector_trainings import (
    entries,
    recipe,
    train_with_checkpoints,
    weights,
)

__all__ = ["entries"]

PROJECT = Path(__file__).resolve().parents[3]


def test_training_writes_what_it_promises(tmp_path: Path, entries: list[TrainingSet]) -> None:
    validation = [*entries[0].scenes[:2], *entries[1].scenes[:2]]
    result = train_detector(recipe(keep="best"), entries, validation, tmp_path, device="cpu")
    assert result.steps == 6 and result.images_per_epoch == {"a": 6, "b": 3}
    history = pq.read_table(tmp_path / "history.parquet").to_pydict()
    assert history["step"] == list(range(6))
    drawn = np.array(history["images/a"]) + np.array(history["images/b"])
    assert drawn.tolist() == [4] * 6
    assert {"classification", "regression", "loss/a", "loss/b", "gradient_norm", "rate"} <= history.keys()
    measured = [step for step, ap in enumerate(history["validation/coco_ap"]) if ap is not None]
    assert measured == [2, 5]
    assert {"validation/ap", "validation/a/coco_ap50", "validation/b/ap"} <= history.keys()
    assert load_detector(tmp_path).model == TINY
    assert (tmp_path / "detector_last.safetensors").is_file()
    assert any((tmp_path / "logs").iterdir())


def test_ap_is_measured_on_what_is_held_out_of_training(tmp_path: Path) -> None:
    entries = [TrainingSet(write_scenes(tmp_path / "a", 10), repeat=1)]
    result = train_detector(recipe(steps=2, held_out=0.4, keep="best"), entries, [], tmp_path, device="cpu")
    held = 10 - result.images_per_epoch["a"]
    assert 0 < held < 10 and "validation/coco_ap" in result.metrics


def test_a_finished_training_ends_at_once_with_the_same_bytes(
    tmp_path: Path, entries: list[TrainingSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between the training's end and the artifact's commit."""
    from personsearch_core.training import detector_process as module

    wanted, validation = recipe(keep="best", steps=3), entries[0].scenes[:2]
    first = train_detector(wanted, entries, validation, tmp_path, device="cpu")
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    monkeypatch.setattr(module._Training, "step", lambda *_: pytest.fail("a step was taken again"))
    assert train_detector(wanted, entries, validation, tmp_path, device="cpu") == first
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == kept
    assert [name for name in RESUME_ONLY if (tmp_path / name).exists()] == ["checkpoints", "history.jsonl"]


def test_metrics_are_read_less_often_from_an_accelerator() -> None:
    settings = LoopSettings(checkpoint_seconds=5.0)
    assert settings.on(torch.device("cuda"), 20) == LoopSettings(checkpoint_seconds=5.0, flush_steps=20)
    assert settings.on(torch.device("cpu"), 20).flush_steps == 1
    assert LoopSettings(flush_steps=3).on(torch.device("cuda"), 20).flush_steps == 3


@pytest.fixture(scope="module")
def whole(entries: list[TrainingSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    train_alone(entries, folder)
    return folder


def train_alone(entries: list[TrainingSet], folder: Path, **options: Any) -> None:
    with one_thread():
        train_detector(recipe(), entries, [], folder, device="cpu", **options)


def test_a_stopped_run_goes_on_to_the_same_bytes(
    tmp_path: Path, entries: list[TrainingSet], whole: Path
) -> None:
    calls = iter(range(100))
    with pytest.raises(TrainingStopped):
        train_alone(entries, tmp_path, should_stop=lambda: next(calls) == 3)
    assert (tmp_path / "checkpoints").is_dir()
    train_alone(entries, tmp_path)
    assert weights(tmp_path) == weights(whole)
    histories = [pq.read_table(each / "history.parquet") for each in (tmp_path, whole)]
    assert histories[0].equals(histories[1])


def test_a_damaged_checkpoint_is_refused_for_the_one_before(
    tmp_path: Path, entries: list[TrainingSet], whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = iter(range(100))
    settings = LoopSettings(checkpoint_steps=2)
    with pytest.raises(TrainingStopped):
        train_alone(entries, tmp_path, settings=settings, should_stop=lambda: next(calls) == 5)
    newest = max((tmp_path / "checkpoints").glob("*.pt"))
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    train_alone(entries, tmp_path)
    assert "is refused" in caplog.text
    assert weights(tmp_path) == weights(whole)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(
    tmp_path: Path, entries: list[TrainingSet], whole: Path
) -> None:
    process = start(train_with_checkpoints, entries, tmp_path)
    kill_at_step(2, tmp_path / "checkpoints", process)
    assert not (tmp_path / "detector.safetensors").exists()
    train_alone(entries, tmp_path)
    assert weights(tmp_path) == weights(whole)


def test_accumulated_batches_are_one_large_batch(tmp_path: Path, entries: list[TrainingSet]) -> None:
    group = TINY.model_copy(update={"norm": "group"})
    train_detector(recipe(group, steps=2), entries, [], tmp_path / "a", device="cpu")
    small = recipe(group, steps=2, batch_size=2, accumulate=2)
    train_detector(small, entries, [], tmp_path / "b", device="cpu")
    one, other = (load_weights(tmp_path / part / "detector.safetensors") for part in "ab")
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-6)


def test_keeping_the_best_needs_validation(tmp_path: Path, entries: list[TrainingSet]) -> None:
    with pytest.raises(PersonSearchError, match="keep: best needs validation"):
        train_detector(recipe(keep="best"), entries, [], tmp_path)


def test_a_non_finite_loss_names_the_images(tmp_path: Path, entries: list[TrainingSet]) -> None:
    with pytest.raises(NonFiniteError, match="the batch holds images"):
        train_detector(
            recipe(lr=1e30, schedule=DetectorSchedule(kind="constant", warmup_steps=0)),
            entries,
            [],
            tmp_path,
            device="cpu",
        )
    assert "images a" in (tmp_path / "non_finite_batch.txt").read_text()


@pytest.mark.parametrize("where", ["accelerator", "cpu", "numpy"])
def test_out_of_memory_says_what_to_change(
    tmp_path: Path, entries: list[TrainingSet], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from personsearch_core.models.detector import Detector

    def exhausted(*_: Any) -> None:
        if where == "accelerator":
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        torch.empty(2**60) if where == "cpu" else np.empty(2**58)

    monkeypatch.setattr(Detector, "losses", exhausted)
    with pytest.raises(PersonSearchError, match=r"training\.batch_size \(4\).*training\.accumulate"):
        train_detector(recipe(), entries, [], tmp_path, device="cpu")


SMALLER = TINY.model_copy(update={"image_width": 48, "image_height": 32})


@pytest.mark.parametrize(
    ("precision", "model", "batch"),
    [("bf16", TINY, 4), ("fp16", SMALLER, 1)],  # a CPU is slow at fp16
)
def test_reduced_precision_trains(
    tmp_path: Path, entries: list[TrainingSet], precision: str, model: DetectorModel, batch: int
) -> None:
    compute = Compute(precision=precision, channels_last=True)  # type: ignore[arg-type]
    wanted = recipe(model, steps=1, batch_size=batch).model_copy(update={"compute": compute})
    result = train_detector(wanted, entries, [], tmp_path, device="cpu")
    assert 0 < result.metrics["loss"] < 10


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "s", 3)
    Path(scenes[1].path).write_bytes(b"")
    with pytest.raises(PersonSearchError, match=r"a1\.png"):
        train_detector(recipe(), [TrainingSet(scenes, repeat=1)], [], tmp_path / "w", device="cpu")


def test_what_fills_a_batch_up_is_found_nowhere(
    entries: list[TrainingSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "SCORE_THRESHOLD", 0.0)
    torch.manual_seed(0)
    detector, scenes = build_detector(TINY).eval(), entries[0].scenes[:3]
    plain = list(validation.detect_boxes(detector, scenes, Compute()))
    filled = list(validation.detect_boxes(detector, scenes, Compute(compile=True)))
    assert len(filled) == 3 and all(len(boxes) for boxes, _ in filled)
    for (boxes, scores), (expected_boxes, expected_scores) in zip(filled, plain, strict=True):
        np.testing.assert_allclose(boxes, expected_boxes, atol=1e-3)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
