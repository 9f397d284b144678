"""Processes forked from one that has loaded what takes seconds to load, and nothing of the project."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["torch", "torchvision", "pandas", "pyarrow.dataset", "zarr"])


def start(function: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """Call a function of a module in a process of its own."""
    process = _FORKS.Process(target=function, args=arguments)
    process.start()
    return process


def finish(function: Callable[..., None], *arguments: object) -> None:
    """As `start`; it must end without an error."""
    process = start(function, *arguments)
    process.join()
    assert process.exitcode == 0


def kill_at_step(step: int, checkpoints: Path, process: ForkServerProcess) -> None:
    """Kill a training with signal 9 once it has written the checkpoint of a step, or a later one."""
    while not any(int(file.stem.removeprefix("step-")) >= step for file in checkpoints.glob("step-*.pt")):
        assert process.is_alive(), "the training has ended first"
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -9
