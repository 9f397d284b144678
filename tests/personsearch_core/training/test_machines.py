"""A detector trained by two machines: two agents of torchrun on this one, with folders of their own."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from personsearch_core.data.sampling import TrainingSet
from personsearch_core.errors import PersonSearchError
from personsearch_core.training import distributed, joining, machines
from personsearch_core.training.detector import train_detector
from personsearch_core.training.distributed import _require_images
from personsearch_core.training.joining import join_training
from personsearch_core.training.loop import LoopSettings, TrainingStopped, never_stop
from personsearch_core.training.machines import Machines, first_machine
from tests.forking import start
from tests.personsearch_core.training.conftest import RECIPE, TrainedByTwo, one_thread
from tests.personsearch_core.training.detector_trainings import entries
from tests.personsearch_core.training.slow_ranks import SHARE

__all__ = ["entries"]

STOPS = "PERSONSEARCH_MACHINES_STOP" in os.environ
"""Whether the other machine also stops the training once, which takes one start more."""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found: int = listener.getsockname()[1]
        return found


def join(port: int, code: str, ended: Path, stop: Path | None = None) -> None:
    """The other machine, as a process; leaves a file with how it ended."""
    try:
        join_training(
            SHARE, "127.0.0.1", port, code=code, wait_seconds=120, prepare=lambda kind, devices: 0,
            should_stop=never_stop if stop is None else stop.exists,
        )  # fmt: skip
    except (PersonSearchError, TrainingStopped, OSError) as error:
        ended.write_text(f"{type(error).__name__}: {error}")
    else:
        ended.write_text("well")


@pytest.mark.slow
def test_two_machines_train_as_one_with_two_processes(
    tmp_path: Path, trained_by_two: TrainedByTwo, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is killed; the training goes on at its checkpoint, perhaps until the other has it stopped."""
    entries = trained_by_two.entries
    monkeypatch.setattr(machines, "SETTLE_SECONDS", 4.0)
    monkeypatch.setattr(distributed, "SHARE", SHARE)
    checkpoints = tmp_path / "two" / "checkpoints"
    listening: set[str] = set()

    def train(attempt: str) -> str:
        """Together with another machine; what that one says at the end."""
        ended = tmp_path / attempt
        other = start(join, port, "v1", ended, tmp_path / f"stop-{attempt}")

        def watch(done: int, total: int, **_: float) -> None:
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            for each in processes if done % 8 == 1 else ():
                with suppress(psutil.Error):
                    sockets = each.net_connections("inet")
                    listening.update(s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN)
            if attempt == "killed" and any(checkpoints.glob("*.pt")) and other.pid is not None:
                os.kill(other.pid, signal.SIGKILL)
            if attempt == "stopped":
                (tmp_path / "stop-stopped").touch()

        try:
            with one_thread():
                train_detector(
                    RECIPE, entries, [], tmp_path / "two", device="cpu", progress=watch,
                    machines=Machines(2, "127.0.0.1", port, "v1"),
                    settings=LoopSettings(checkpoint_steps=2, progress_seconds=0.0),
                )  # fmt: skip
        finally:
            other.join()
        return ended.read_text()

    with pytest.raises(
        PersonSearchError, match=r"machine 2 of 2 \(.*\) is lost.*run the same commands again"
    ):
        train("killed")
    if STOPS:
        newest = max(checkpoints.glob("*.pt"))
        with pytest.raises(TrainingStopped, match=r"of 16 steps.*asked by"):
            train("stopped")
        assert "asked by" in (tmp_path / "stopped").read_text()
        assert max(checkpoints.glob("*.pt")) >= newest
    assert train("done") == "well"
    assert listening <= {"127.0.0.1", "::1"}
    both = (trained_by_two.folder, tmp_path / "two")
    one, two = ((each / "detector.safetensors").read_bytes() for each in both)
    assert one == two


def in_background(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_a_machine_is_refused_before_anything_starts(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "GATHER_SECONDS", 2.0)
    monkeypatch.setattr(machines, "LEAVE_SECONDS", 0.5)
    here = Machines(2, "127.0.0.1", port, "personsearch 1")
    raised: list[BaseException] = []

    def first() -> None:
        try:
            with first_machine(here) as company:
                company.gather({"job": {}, "device": "cpu"}, 1, never_stop)
        except PersonSearchError as error:
            raised.append(error)

    thread = in_background(first)
    with pytest.raises(PersonSearchError, match="trains with personsearch 1, this one has personsearch 2"):
        join_training(
            SHARE, "127.0.0.1", port, code="personsearch 2", wait_seconds=20, should_stop=never_stop,
            prepare=lambda kind, devices: 0,
        )  # fmt: skip
    thread.join()
    assert "0 of 1 other machines came to 127.0.0.1" in str(raised[0])


def test_an_address_that_cannot_be_waited_at_is_refused(port: int) -> None:
    taken = Machines(2, "127.0.0.1", port, "")
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(PersonSearchError, match=f"wait at {taken.address}: Address already in use"),
        first_machine(taken),
    ):
        pass
    with (
        pytest.raises(PersonSearchError, match="not an address of this machine"),
        first_machine(Machines(2, "192.0.2.1", port, "")),
    ):
        pass


def test_nothing_to_join_is_waited_for_in_vain(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "RETRY_SECONDS", 0.01)
    with pytest.raises(TimeoutError, match=f"no training began at 127.0.0.1:{port}"):
        join_training(
            SHARE, "127.0.0.1", port, code="", wait_seconds=0.05, prepare=lambda kind, devices: 0,
            should_stop=never_stop,
        )  # fmt: skip


def test_images_that_a_machine_lacks_are_named(entries: list[TrainingSet], tmp_path: Path) -> None:
    scenes = list(entries[0].scenes)
    _require_images(scenes)
    gone = replace(scenes[1], path=str(tmp_path / "gone.png"))
    with pytest.raises(PersonSearchError, match=r"gone.png does not exist: all machines"):
        _require_images([scenes[0], gone])
