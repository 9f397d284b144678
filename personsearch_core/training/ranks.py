"""One of the processes that torchrun starts for a training: its rank, its share, what it reports.

Rank 0, a process of the first machine, reports in lines of JSON on standard output. A rank that fails leaves
the reason at the meeting and exits at once; torchrun then ends the others of its machine.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from personsearch_core.errors import PersonSearchError
from personsearch_core.training.group import Together
from personsearch_core.training.loop import LoopSettings, NonFiniteError, Progress, TrainingStopped
from personsearch_core.training.meeting import ORDER, STOP, Meeting
from personsearch_core.training.torchrun import Post

STEPS_BETWEEN_STOP_CHECKS = 10
"""The ranks agree to stop, which synchronises an accelerator: not at every step."""


@dataclass(frozen=True)
class Rank:
    """What one of the processes computes on, and what it reports to."""

    device: torch.device
    group: Together
    work_dir: Path
    settings: LoopSettings
    progress: Progress
    should_stop: Callable[[], bool]
    checks_files: bool = False
    """Whether it is to look for the job's files: on a machine that has joined, nothing has checked them."""


def run_rank(post: Post) -> None:
    """One rank's part of a training."""
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    local_rank = int(os.environ["LOCAL_RANK"])
    number, count = post.machine * post.devices + local_rank, post.machines * post.devices
    meeting = post.meeting()
    try:
        order = meeting.take(ORDER)
        device = _rank_device(
            order["device"], post.first_device + local_rank, order["threads"] // post.devices
        )
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore("ranks", meeting.store),
            rank=number,
            world_size=count,
            device_id=device if device.type == "cuda" else None,
        )
        outcome = _train(post, order, meeting, device, Together(device))
    except Exception as error:
        traceback.print_exc()
        # Where the meeting is gone, the traceback and the exit status have to do.
        with suppress(RuntimeError):
            meeting.leave_failure({**_failure(error), "rank": number, "machine": post.machine})
        # At once: an orderly exit would wait for ranks that wait for this one.
        os._exit(1)
    if number == 0:
        _send(**outcome)
    dist.destroy_process_group()


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, NonFiniteError):
        return {"kind": "non_finite", "message": str(error)}
    if isinstance(error, PersonSearchError):
        return {"kind": "error", "message": str(error)}
    if isinstance(error, OSError) and error.errno is not None:
        name = None if error.filename is None else str(error.filename)
        return {"kind": "system", "errno": error.errno, "message": error.strerror, "filename": name}
    return {"kind": "broke", "message": f"{type(error).__name__}: {error}"}


def _train(
    post: Post, order: dict[str, Any], meeting: Meeting, device: torch.device, group: Together
) -> dict[str, Any]:
    def report(done: int, total: int, **metrics: float) -> None:
        if group.rank == 0:
            _send(kind="progress", done=done, total=total, metrics=metrics)

    module, _, function = post.share.partition(":")
    rank = Rank(
        device,
        group,
        Path(post.work_dir),
        LoopSettings(**order["settings"]),
        report,
        _agreed_stop(meeting, group),
        checks_files=post.machine > 0 and os.environ["LOCAL_RANK"] == "0",
    )
    try:
        result = getattr(import_module(module), function)(order["job"], rank)
    except TrainingStopped as stopped:
        return {"kind": "interrupted", "message": str(stopped)}
    return {"kind": "result", "result": result}


def _agreed_stop(meeting: Meeting, group: Together) -> Callable[[], bool]:
    """Whether all ranks stop before this step; they agree every few steps only."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked % STEPS_BETWEEN_STOP_CHECKS == 1 and group.any(meeting.has(STOP))

    return should_stop


def _rank_device(kind: str, gpu: int, threads: int) -> torch.device:
    if kind == "cuda":
        device = torch.device("cuda", gpu)
        torch.cuda.set_device(device)
        return device
    torch.set_num_threads(max(1, threads))
    return torch.device("cpu")


def _end_with_launcher() -> None:
    """Wait for standard input to close, then exit at once.

    Unbuffered: a thread that waits in `sys.stdin` holds its lock, on which the interpreter's exit aborts.
    """
    while os.read(sys.stdin.fileno(), 65536):
        pass
    os._exit(1)


def _send(**message: Any) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    run_rank(Post(**json.loads(sys.argv[1])))
