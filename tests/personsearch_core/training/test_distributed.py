"""A detector trained by several processes: with the gradients of one, stopped together, each failure told."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch

from flows.errors import DISK_FULL, explain
from personsearch_core.data.sampling import TrainingSet, TrainingStream
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.states import load_weights
from personsearch_core.training.detector import train_detector
from personsearch_core.training.loop import (
    LoopSettings,
    NonFiniteError,
    TrainingStopped,
    never_stop,
)
from tests.personsearch_core.scene_files import TINY, write_scenes
from tests.personsearch_core.training.detector_trainings import entries, recipe

__all__ = ["entries"]


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
    from personsearch_core.training.launch import _result
    from personsearch_core.training.meeting import meeting_in
    from personsearch_core.training.ranks import _failure

    full = OSError(errno.ENOSPC, "No space left on device", "/store/checkpoint")
    follows = RuntimeError("connection closed by peer")
    for number, (first, wanted) in enumerate(
        [
            (full, OSError),
            (NonFiniteError("loss is nan"), NonFiniteError),
            (PersonSearchError("a1.png is damaged"), PersonSearchError),
            (KeyError("x"), RuntimeError),
        ]
    ):
        meeting = meeting_in(tmp_path / str(number))
        meeting.leave_failure({**_failure(first), "rank": 1})
        meeting.leave_failure({**_failure(follows), "rank": 0})
        outcome = meeting.failures()[0]
        assert outcome["rank"] == 1
        with pytest.raises(wanted) as raised:
            _result(outcome, 1)
        assert not isinstance(first, OSError) or explain(raised.value) == DISK_FULL


def test_devices_are_counted_from_the_one_that_is_named(
    tmp_path: Path, entries: list[TrainingSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    from personsearch_core.training import launch, ranks

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert launch.cuda_numbers(torch.device("cuda:2"), 2) == range(2, 4)
    with pytest.raises(PersonSearchError, match="3 GPUs from cuda:2 on are needed, but this machine has 4"):
        train_detector(recipe(), entries, [], tmp_path, device="cuda:2", devices=3)
    used: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: used.append(device.index))
    assert ranks._rank_device("cuda", 3, 1) == torch.device("cuda:3")
    assert used == [3]


@pytest.mark.slow
def test_processes_stop_together_and_go_on(
    tmp_path: Path,
    entries: list[TrainingSet],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A single process is what they are compared with: several more would double the test's time."""
    monkeypatch.setattr("personsearch_core.training.torchrun.POLL_SECONDS", 0.02)
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
