"""Processes that train together: launched by torchrun, followed over a pipe.

`train_together` writes the job as JSON and starts torchrun on this module. Rank 0 reports in lines of JSON
on standard output. A file asks the ranks to stop. A rank that fails writes a file with the reason and exits
at once; torchrun then ends the others. Every rank watches standard input, a pipe held open by the launching
process: when it closes, the launcher is gone, and the rank exits.

All ranks are on one machine and cannot be reached from another: they find each other through files instead of
torchrun's server, which would listen on all interfaces, and communicate over the loopback interface.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist

from personsearch_core.errors import PersonSearchError
from personsearch_core.training.group import Together
from personsearch_core.training.loop import PARALLEL, LoopSettings, NonFiniteError, Progress, TrainingStopped

logger = logging.getLogger(__name__)

JOB = "job.json"
STOP = "stop"
FAILURES = "failed-*.json"
LOOPBACK = {
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}
POLL_SECONDS = 0.5
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


def train_together(
    share: str,
    job: Mapping[str, Any],
    work_dir: Path,
    *,
    device: torch.device,
    devices: int,
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
        Checkpoints and results; its folder `parallel` is for the processes.
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
    """
    if device.type == "cuda":
        cuda_numbers(device, devices)
    folder = work_dir / PARALLEL
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    stop, order = folder / STOP, folder / JOB
    order.write_text(
        json.dumps(
            {
                "share": share,
                "job": job,
                "work_dir": str(work_dir),
                "device": device.type,
                "first_device": device.index or 0,
                "threads": torch.get_num_threads(),
                "settings": asdict(settings or LoopSettings()),
            }
        )
    )
    # A new name: processes left by a killed launcher must not write to it.
    name = uuid4().hex
    command = [
        *(sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={devices}"),
        *("--rdzv-backend=c10d", "--rdzv-conf=store_type=file", f"--rdzv-id={name}"),
        f"--rdzv-endpoint={folder / f'launchers-{name}'}",
        *("-m", __name__, str(order), str(folder / f"ranks-{name}")),
    ]
    environment = {**os.environ, **LOOPBACK}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as launcher:
        outcome: dict[str, Any] = {}
        for message in _messages(launcher, stop, should_stop):
            if message["kind"] == "progress":
                progress(message["done"], message["total"], **message["metrics"])
            else:
                outcome = message
    outcome = _first_failure(folder) or outcome
    shutil.rmtree(folder)
    return _result(outcome, launcher.returncode)


def cuda_numbers(device: torch.device, devices: int) -> range:
    """Numbers of the `devices` GPUs from `device` on. Raises PersonSearchError if there are too few."""
    first, here = device.index or 0, torch.cuda.device_count()
    if first + devices > here:
        raise PersonSearchError(
            f"{devices} GPUs from cuda:{first} on are needed, but this machine has {here}: lower "
            "run.devices or set an earlier run.device"
        )
    return range(first, first + devices)


def _messages(
    launcher: subprocess.Popen[bytes], stop: Path, should_stop: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """Rank 0's messages until the launcher ends; passes a request to stop on to the ranks."""
    assert launcher.stdout is not None
    descriptor = launcher.stdout.fileno()
    unfinished = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if should_stop():
                stop.touch()
            if not selector.select(timeout=POLL_SECONDS):
                continue
            received = os.read(descriptor, 65536)
            if not received:
                return
            *lines, unfinished = (unfinished + received).split(b"\n")
            for line in lines:
                if line.startswith(b'{"kind"'):
                    yield json.loads(line)
                elif line:
                    logger.info("%s", line.decode(errors="replace"))


def _first_failure(folder: Path) -> dict[str, Any] | None:
    failures = [json.loads(path.read_text()) for path in sorted(folder.glob(FAILURES))]
    return min(failures, key=lambda failure: float(failure["time"]), default=None)


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


def _run_rank(job_path: Path, meeting: Path) -> None:
    """One rank's part of a job; the ranks find each other through the file `meeting`."""
    order = json.loads(job_path.read_text())
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        device = _rank_device(order["device"], order["first_device"], order["threads"])
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.FileStore(str(meeting), count),
            rank=rank,
            world_size=count,
        )
        outcome = _train(order, device, Together(device), job_path.parent)
    except Exception as error:
        traceback.print_exc()
        _leave_failure(job_path.parent, rank, error)
        # At once: an orderly exit would wait for ranks that wait for this one.
        os._exit(1)
    if rank == 0:
        _send(**outcome)
    dist.destroy_process_group()


def _leave_failure(folder: Path, rank: int, error: Exception) -> None:
    failure = {**_failure(error), "rank": rank, "time": time.time()}
    temporary = folder / f"rank-{rank}.part"
    temporary.write_text(json.dumps(failure))
    temporary.replace(folder / FAILURES.replace("*", str(rank)))


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, NonFiniteError):
        return {"kind": "non_finite", "message": str(error)}
    if isinstance(error, PersonSearchError):
        return {"kind": "error", "message": str(error)}
    if isinstance(error, OSError) and error.errno is not None:
        name = None if error.filename is None else str(error.filename)
        return {"kind": "system", "errno": error.errno, "message": error.strerror, "filename": name}
    return {"kind": "broke", "message": f"{type(error).__name__}: {error}"}


def _train(order: dict[str, Any], device: torch.device, group: Together, folder: Path) -> dict[str, Any]:
    def report(done: int, total: int, **metrics: float) -> None:
        if group.rank == 0:
            _send(kind="progress", done=done, total=total, metrics=metrics)

    module, _, function = order["share"].partition(":")
    rank = Rank(
        device,
        group,
        Path(order["work_dir"]),
        LoopSettings(**order["settings"]),
        report,
        _agreed_stop(folder / STOP, group),
    )
    try:
        result = getattr(import_module(module), function)(order["job"], rank)
    except TrainingStopped as stopped:
        return {"kind": "interrupted", "message": str(stopped)}
    return {"kind": "result", "result": result}


def _agreed_stop(stop: Path, group: Together) -> Callable[[], bool]:
    """Whether all ranks stop before this step; they agree every few steps only."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked % STEPS_BETWEEN_STOP_CHECKS == 1 and group.any(stop.exists())

    return should_stop


def _rank_device(kind: str, first: int, threads: int) -> torch.device:
    local_rank, count = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if kind == "cuda":
        device = torch.device("cuda", first + local_rank)
        torch.cuda.set_device(device)
        return device
    torch.set_num_threads(max(1, threads // count))
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
    _run_rank(Path(sys.argv[1]), Path(sys.argv[2]))
