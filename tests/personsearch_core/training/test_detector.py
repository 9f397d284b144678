from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch

from flows.errors import DISK_FULL, explain
from personsearch_core.data.sampling import TrainingSet, TrainingStream
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.detector import build_detector
from personsearch_core.models.states import load_weights
from personsearch_core.models.weights import load_detector
from personsearch_core.recipes import (
    Compute,
    DetectorAugmentation,
    DetectorModel,
    DetectorRecipe,
    DetectorSchedule,
    DetectorTraining,
)
from personsearch_core.training import validation
from personsearch_core.training.detector import train_detector
from personsearch_core.training.loop import (
    RESUME_ONLY,
    LoopSettings,
    NonFiniteError,
    TrainingStopped,
    discard_work,
    never_stop,
)
from tests.personsearch_core.scene_files import TINY, write_scenes

PROJECT = Path(__file__).resolve().parents[3]
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
    root = tmp_path_factory.mktemp("train")
    empty = write_scenes(root / "none", 1, people=0, source="a")
    return [
        TrainingSet([*write_scenes(root / "a", 5), *empty], repeat=1),
        TrainingSet(write_scenes(root / "b", 4, source="b", seed=1), choose=3),
    ]


def weights(directory: Path) -> bytes:
    return (directory / "detector.safetensors").read_bytes()


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
    discard_work(tmp_path)
    assert not [name for name in RESUME_ONLY if (tmp_path / name).exists()]


def test_metrics_are_read_less_often_from_an_accelerator() -> None:
    settings = LoopSettings(checkpoint_seconds=5.0)
    assert settings.on(torch.device("cuda"), 20) == LoopSettings(checkpoint_seconds=5.0, flush_steps=20)
    assert settings.on(torch.device("cpu"), 20).flush_steps == 1
    assert LoopSettings(flush_steps=3).on(torch.device("cuda"), 20).flush_steps == 3


def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path: Path, entries: list[TrainingSet]) -> None:
    calls = iter(range(100))
    with pytest.raises(TrainingStopped):
        train_detector(
            recipe(), entries, [], tmp_path / "a", device="cpu", should_stop=lambda: next(calls) == 3
        )
    assert (tmp_path / "a" / "checkpoints").is_dir()
    train_detector(recipe(), entries, [], tmp_path / "a", device="cpu")
    train_detector(recipe(), entries, [], tmp_path / "b", device="cpu")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    histories = [pq.read_table(tmp_path / part / "history.parquet") for part in "ab"]
    assert histories[0].equals(histories[1])


def test_a_damaged_checkpoint_is_refused_for_the_one_before(
    tmp_path: Path, entries: list[TrainingSet], caplog: pytest.LogCaptureFixture
) -> None:
    calls = iter(range(100))
    with pytest.raises(TrainingStopped):
        train_detector(
            recipe(),
            entries,
            [],
            tmp_path / "a",
            device="cpu",
            settings=LoopSettings(checkpoint_steps=2),
            should_stop=lambda: next(calls) == 5,
        )
    newest = max((tmp_path / "a" / "checkpoints").glob("*.pt"))
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    train_detector(recipe(), entries, [], tmp_path / "a", device="cpu")
    train_detector(recipe(), entries, [], tmp_path / "b", device="cpu")
    assert "is refused" in caplog.text
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


KILLED = """
import json, sys
from pathlib import Path
sys.path.insert(0, {project!r})
import torch
torch.set_num_threads(1)
from personsearch_core.training.loop import LoopSettings
from tests.personsearch_core.scene_files import write_scenes
from tests.personsearch_core.training.test_detector import recipe
from personsearch_core.data.sampling import TrainingSet
from personsearch_core.training.detector import train_detector
work = Path(sys.argv[1])
entries = [TrainingSet(write_scenes(work.parent / "scenes", 5), repeat=1)]
train_detector(recipe(steps=int(sys.argv[2])), entries, [], work, device="cpu",
    settings=LoopSettings(checkpoint_steps=1, progress_seconds=0),
    progress=lambda done, total, **_: print(done, flush=True))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED.format(project=str(PROJECT))]
    with subprocess.Popen([*command, str(tmp_path / "a"), "8"], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if int(line) >= 4:
                os.kill(killed.pid, signal.SIGKILL)
                break
    assert not (tmp_path / "a" / "detector.safetensors").exists()
    subprocess.run([*command, str(tmp_path / "a"), "8"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, str(tmp_path / "b"), "8"], check=True, stdout=subprocess.DEVNULL)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_accumulated_batches_are_one_large_batch(tmp_path: Path, entries: list[TrainingSet]) -> None:
    group = TINY.model_copy(update={"norm": "group"})
    train_detector(recipe(group, steps=2), entries, [], tmp_path / "a", device="cpu")
    small = recipe(group, steps=2, batch_size=2, accumulate=2)
    train_detector(small, entries, [], tmp_path / "b", device="cpu")
    one, other = (load_weights(tmp_path / part / "detector.safetensors") for part in "ab")
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Path, entries: list[TrainingSet]) -> None:
    """An odd batch gives the processes unequal shares. No other machine can reach them."""
    wanted = recipe(TINY.model_copy(update={"norm": "group"}), steps=2, batch_size=3)
    validation = list(entries[0].scenes[:3])
    seen: list[int] = []
    listening: set[str] = set()

    def watch(done: int, total: int, **_: float) -> None:
        seen.append(done)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                sockets = process.net_connections("inet")
                listening.update(each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN)

    together = train_detector(
        wanted, entries, validation, tmp_path / "two", device="cpu", devices=2, progress=watch,
        settings=LoopSettings(progress_seconds=0.0),
    )  # fmt: skip
    assert listening and listening <= {"127.0.0.1", "::1"}
    alone = train_detector(wanted, entries, validation, tmp_path / "one", device="cpu")
    one, two = (load_weights(tmp_path / part / "detector.safetensors") for part in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-6)
    assert seen[-1] == 2
    assert together.metrics.keys() == alone.metrics.keys()
    assert together.metrics["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-4)


@pytest.mark.slow
def test_a_failure_of_any_process_ends_all_and_is_told(tmp_path: Path) -> None:
    """The image that cannot be read is the second of every batch, which is rank 1's."""
    scenes = write_scenes(tmp_path / "s", 2)
    wanted = recipe(TINY.model_copy(update={"norm": "group"}), steps=1, batch_size=2)
    entries = [TrainingSet(scenes, repeat=1)]
    second = TrainingStream(entries, wanted.seed)[1][1]
    Path(second.path).write_bytes(b"\xff\xd8\xff damaged")
    with pytest.raises(PersonSearchError, match=Path(second.path).name):
        train_detector(wanted, entries, [], tmp_path / "w", device="cpu", devices=2)
    assert not (tmp_path / "w" / "parallel").exists()


def test_the_first_of_several_failures_is_raised_as_what_it_was(tmp_path: Path) -> None:
    from personsearch_core.training.distributed import _first_failure, _leave_failure, _result

    full = OSError(errno.ENOSPC, "No space left on device", "/store/checkpoint")
    follows = RuntimeError("connection closed by peer")
    for first, wanted in [
        (full, OSError),
        (NonFiniteError("loss is nan"), NonFiniteError),
        (PersonSearchError("a1.png is damaged"), PersonSearchError),
        (KeyError("x"), RuntimeError),
    ]:
        _leave_failure(tmp_path, 1, first)
        _leave_failure(tmp_path, 0, follows)
        outcome = _first_failure(tmp_path)
        assert outcome is not None and outcome["rank"] == 1
        with pytest.raises(wanted) as raised:
            _result(outcome, 1)
        assert not isinstance(first, OSError) or explain(raised.value) == DISK_FULL


def test_devices_are_counted_from_the_one_that_is_named(
    tmp_path: Path, entries: list[TrainingSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    from personsearch_core.training import distributed

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert distributed.cuda_numbers(torch.device("cuda:2"), 2) == range(2, 4)
    with pytest.raises(PersonSearchError, match="3 GPUs from cuda:2 on are needed, but this machine has 4"):
        train_detector(recipe(), entries, [], tmp_path, device="cuda:2", devices=3)
    used: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: used.append(device.index))
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    settings = LoopSettings(checkpoint_seconds=7.0)
    job = distributed._job(recipe(), entries, [], tmp_path, torch.device("cuda:2"), settings)
    assert distributed._rank_device(job["device"], job["first_device"], 1) == torch.device("cuda:3")
    assert used == [3]
    assert LoopSettings(**json.loads(json.dumps(job))["settings"]) == settings


@pytest.mark.slow
def test_processes_stop_together_and_go_on(
    tmp_path: Path,
    entries: list[TrainingSet],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A single process is what they are compared with: several more would double the test's time."""
    monkeypatch.setattr("personsearch_core.training.distributed.POLL_SECONDS", 0.02)
    wanted = recipe(TINY.model_copy(update={"norm": "group"}), steps=22)
    checkpoints = tmp_path / "two" / "checkpoints"

    def train(should_stop: Callable[[], bool] = never_stop) -> None:
        train_detector(
            wanted, entries, [], tmp_path / "two", device="cpu", devices=2,
            settings=LoopSettings(checkpoint_steps=2), should_stop=should_stop,
        )  # fmt: skip

    with pytest.raises(TrainingStopped, match="of 22 steps"):
        train(lambda: any(checkpoints.glob("*.pt")))
    newest = max(checkpoints.glob("*.pt"))
    train()
    assert max(checkpoints.glob("*.pt")) > newest
    assert "Fatal Python error" not in capfd.readouterr().err
    train_detector(wanted, entries, [], tmp_path / "one", device="cpu")
    one, two = (load_weights(tmp_path / part / "detector.safetensors") for part in ("one", "two"))
    # Two processes add up in another order, which 22 steps carry on: alike as a whole, not number by number.
    apart = sum(float((two[name] - tensor).square().sum()) for name, tensor in one.items())
    size = sum(float(tensor.square().sum()) for tensor in one.values())
    assert apart < 1e-5 * size
    rows = [pq.read_table(tmp_path / part / "history.parquet") for part in ("one", "two")]
    assert rows[0]["step"].equals(rows[1]["step"])
    np.testing.assert_allclose(rows[1]["loss"].to_numpy(), rows[0]["loss"].to_numpy(), rtol=5e-2)


def test_processes_on_a_cpu_refuse_batch_norm(tmp_path: Path, entries: list[TrainingSet]) -> None:
    with pytest.raises(PersonSearchError, match="norm: batch cannot be synchronised"):
        train_detector(recipe(), entries, [], tmp_path, device="cpu", devices=2)


def test_more_devices_than_images_are_refused(tmp_path: Path, entries: list[TrainingSet]) -> None:
    with pytest.raises(PersonSearchError, match="8 devices cannot share a batch of 4"):
        train_detector(recipe(), entries, [], tmp_path, devices=8)


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


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains(tmp_path: Path, entries: list[TrainingSet], precision: str) -> None:
    compute = Compute(precision=precision, channels_last=True)  # type: ignore[arg-type]
    wanted = recipe(steps=3).model_copy(update={"compute": compute})
    result = train_detector(wanted, entries, [], tmp_path, device="cpu")
    assert 0 < result.metrics["loss"] < 10


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "s", 3)
    Path(scenes[1].path).write_bytes(b"")
    with pytest.raises(PersonSearchError, match=r"a1\.png"):
        train_detector(recipe(), [TrainingSet(scenes, repeat=1)], [], tmp_path / "w", device="cpu")


def test_jobs_carry_scenes_unchanged(entries: list[TrainingSet]) -> None:
    from personsearch_core.training.distributed import _scene_as_json, _scene_from_json

    scene = entries[0].scenes[0]
    again: Scene = _scene_from_json(json.loads(json.dumps(_scene_as_json(scene))))
    np.testing.assert_array_equal(again.boxes, scene.boxes)
    assert (again.image_id, again.person_ids, again.box_ids) == (
        scene.image_id,
        scene.person_ids,
        scene.box_ids,
    )


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
