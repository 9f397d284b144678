"""Train in several processes: those of this machine, and those of machines that join.

`train_together` publishes the job as JSON where the processes meet and starts torchrun on this machine;
`machines.join_training` does the same on others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from personsearch_core.errors import PersonSearchError
from personsearch_core.training.loop import PARALLEL, LoopSettings, NonFiniteError, Progress, TrainingStopped
from personsearch_core.training.machines import FirstMachine, Machines, first_machine
from personsearch_core.training.meeting import ORDER, meeting_in
from personsearch_core.training.torchrun import Post, Torchrun, torchrun


def train_together(
    share: str,
    job: Mapping[str, Any],
    work_dir: Path,
    *,
    device: torch.device,
    devices: int,
    machines: Machines | None = None,
    settings: LoopSettings | None = None,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Train in `devices` processes: on this machine's GPUs from `device` on, or on its CPU.

    Parameters
    ----------
    share
        `module:function` that each process calls with the job and its `Rank`; returns its result as JSON.
    job
        JSON.
    work_dir
        Checkpoints and results; its folder `parallel` is for the processes of a single machine.
    machines
        Several: wait until they are all there, each with `devices` processes.
    settings, progress, should_stop
        As those of one process; progress is that of rank 0.

    Returns
    -------
    dict
        Rank 0's result.

    Raises
    ------
    Exception
        What one process would raise; if several ranks fail, the first failure, because the others usually
        follow from it.
    PersonSearchError
        Also if another machine does not come, or is lost.
    """
    first = cuda_numbers(device, devices).start if device.type == "cuda" else 0
    order = {
        "job": job,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "settings": asdict(settings or LoopSettings()),
    }
    place: AbstractContextManager[_OneMachine | FirstMachine]
    place = _one_machine(work_dir) if machines is None else first_machine(machines)
    with place as here:
        here.gather(order, devices, should_stop)
        post = Post(share, here.name, str(work_dir), devices, first, **here.place)
        with torchrun(post) as running:
            said = _follow(running, here, progress, should_stop)
        outcome = here.end(said, ended_by_itself=not running.was_ended)
    return _result(outcome, running.returncode)


def cuda_numbers(device: torch.device, devices: int) -> range:
    """Numbers of the `devices` GPUs from `device` on. Raises PersonSearchError if there are too few."""
    first, here = device.index or 0, torch.cuda.device_count()
    if first + devices > here:
        raise PersonSearchError(
            f"{devices} GPUs from cuda:{first} on are needed, but this machine has {here}: lower "
            "run.devices or set an earlier run.device"
        )
    return range(first, first + devices)


class _OneMachine:
    """A training of the processes of this machine, with the methods of `FirstMachine`."""

    def __init__(self, folder: Path) -> None:
        self.name = uuid4().hex
        self.place: dict[str, Any] = {"folder": str(folder)}
        self.meeting = meeting_in(folder / self.name)

    def gather(self, order: dict[str, Any], devices: int, should_stop: Callable[[], bool]) -> None:
        self.meeting.put(ORDER, order)

    def goes_on(self) -> bool:
        return True

    def end(self, said: dict[str, Any], *, ended_by_itself: bool) -> dict[str, Any]:
        return next(iter(self.meeting.failures()), said)


@contextmanager
def _one_machine(work_dir: Path) -> Iterator[_OneMachine]:
    """The folder where the processes of this machine meet; it stays where the launcher is killed."""
    folder = work_dir / PARALLEL
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    yield _OneMachine(folder)
    shutil.rmtree(folder)


def _follow(
    running: Torchrun, here: FirstMachine | _OneMachine, progress: Progress, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """What rank 0 says of how it ended, if it does; passes a request to stop on to the ranks."""

    def goes_on() -> bool:
        if should_stop():
            here.meeting.ask_to_stop()
        return here.goes_on()

    said: dict[str, Any] = {}
    for message in running.messages(goes_on):
        if message["kind"] == "progress":
            progress(message["done"], message["total"], **message["metrics"])
        else:
            said = message
    return said


def _result(outcome: dict[str, Any], returncode: int) -> dict[str, Any]:
    kind, text = outcome.get("kind"), outcome.get("message", "")
    if kind == "result":
        result: dict[str, Any] = outcome["result"]
        return result
    if kind == "interrupted":
        raise TrainingStopped(text)
    if kind == "non_finite":
        raise NonFiniteError(text)
    if kind == "error":
        raise PersonSearchError(text)
    if kind == "system":
        raise OSError(outcome["errno"], text, outcome["filename"])
    if kind == "broke":
        raise RuntimeError(f"rank {outcome['rank']} failed: {text}; the traceback is in the log")
    raise RuntimeError(f"torchrun exited with status {returncode}; see its log")
