"""A detector trained by several processes: with the gradients of one, stopped together, each failure told."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from flows.errors import DISK_FULL, explain
from personsearch_core.data.sampling import TrainingSet, TrainingStream
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.states import load_weights
from personsearch_core.training.checkpoints import load_newest
from personsearch_core.training.detector import train_detector
from personsearch_core.training.detector_process import DetectorResult
from personsearch_core.training.loop import CHECKPOINTS, NonFiniteError, TrainingStopped, never_stop
from tests.personsearch_core.scene_files import TINY, write_scenes
from tests.personsearch_core.training.conftest import RECIPE, TrainedByTwo, one_thread
from tests.personsearch_core.training.detector_trainings import entries, recipe

__all__ = ["entries"]


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one_stop_together_and_go_on(
    trained_by_two: TrainedByTwo, tmp_path: Path
) -> None:
    """A single process is what they are compared with. No other machine can reach them."""
    assert "of 16 steps" in trained_by_two.stopped
    assert trained_by_two.steps[0] < trained_by_two.steps[1] == trained_by_two.seen[-1] == 16
    assert trained_by_two.listening and trained_by_two.listening <= {"127.0.0.1", "::1"}
    assert "Fatal Python error" not in trained_by_two.errors
    first = load_newest(trained_by_two.first)
    assert first is not None

    def train(should_stop: Callable[[], bool] = never_stop) -> DetectorResult:
        entries = trained_by_two.entries
        with one_thread():
            return train_detector(
                RECIPE, entries, entries[0].scenes[:3], tmp_path, device="cpu", should_stop=should_stop
            )

    calls = iter(range(16))
    with pytest.raises(TrainingStopped):
        train(lambda: next(calls) == first.step)
    alone = load_newest(tmp_path / CHECKPOINTS)
    assert alone is not None
    for name, tensor in alone.state["detector"].items():
        torch.testing.assert_close(first.state["detector"][name], tensor, rtol=1e-4, atol=1e-6)
    result = train()
    assert trained_by_two.result.metrics.keys() == result.metrics.keys()
    one, two = (load_weights(each / "detector.safetensors") for each in (tmp_path, trained_by_two.folder))
    # Two processes add up in another order, which 16 steps carry on: alike as a whole, not number by number.
    apart = sum(float((two[name] - tensor).square().sum()) for name, tensor in one.items())
    size = sum(float(tensor.square().sum()) for tensor in one.values())
    assert apart < 1e-5 * size
    rows = [pq.read_table(each / "history.parquet") for each in (tmp_path, trained_by_two.folder)]
    assert rows[0]["step"].equals(rows[1]["step"])
    losses = [each["loss"].to_numpy() for each in rows]
    np.testing.assert_allclose(losses[1][: first.step], losses[0][: first.step], rtol=1e-4)
    np.testing.assert_allclose(losses[1], losses[0], rtol=5e-2)


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
