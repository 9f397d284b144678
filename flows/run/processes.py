"""Work in a separate process: start it, follow it, stop it, and never leave it behind.

The child is forked from flows/run/template.py and runs flows/run/child.py: it reads its task as one line of
JSON from standard input and then watches that pipe, whose end tells it that this process is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.errors import Failure, Interrupted, StageFailed, failure_of
from flows.run.template import KEEP_FREED_MEMORY, TEMPLATE, Forked

log = logging.getLogger(__name__)

Progress = Callable[..., None]
"""progress(done, total, **metrics)"""

STOP_GRACE_SECONDS = 60.0
"""How long a child may take to write a checkpoint after SIGTERM."""

CANCEL_GRACE_SECONDS = 25.0
"""The same where Prefect cancels a flow: 30 s later its runner kills this process, and the child with it."""

FORK_GRACE_SECONDS = 0.5
"""How long a process that is to stop may take to start: torch takes seconds to load, and nothing is lost."""

_IN_PREFECTS_RUNNER = "PREFECT__FLOW_RUN_ID"
"""What Prefect's runner sets in the environment of a flow that it has started."""


@dataclass(frozen=True)
class Started:
    """A child process at work."""

    child: Forked
    target: str
    log_path: Path

    def result(
        self,
        *,
        on_progress: Progress,
        timeout_seconds: float | None = None,
        stop: threading.Event | None = None,
    ) -> Any:
        """Follow the process to its end and return its JSON result.

        Its log records go to this process's loggers, too. `stop`, set by another thread, asks it to stop at a
        checkpoint.
        Raises StageFailed when it ends without a result, also after `timeout_seconds` and by `stop`.
        """
        grace = STOP_GRACE_SECONDS
        try:
            result = _follow(self.child.messages, on_progress, timeout_seconds, stop)
            self.child.wait(STOP_GRACE_SECONDS)
        except Interrupted as stopped:
            result = failure_of(stopped)
        except BaseException:
            if _IN_PREFECTS_RUNNER in os.environ:
                grace = CANCEL_GRACE_SECONDS
            raise
        finally:
            self.stop(grace)
        if result is None:
            result = self._death()
        if isinstance(result, Failure):
            raise StageFailed(replace(result, log=str(self.log_path)))
        return result.value

    def stop(self, grace_seconds: float | None = None) -> None:
        """Ask it to stop at a checkpoint if it runs, then make sure that its whole group is gone."""
        grace_seconds = STOP_GRACE_SECONDS if grace_seconds is None else grace_seconds
        if not self.child.is_forked(within=FORK_GRACE_SECONDS):
            self.child.close()  # once forked, it finds its input closed, and ends
            return
        if self.child.is_running():
            self.child.signal(signal.SIGTERM)
            try:
                self.child.wait(grace_seconds)
            except TimeoutError:
                log.warning(
                    "process %s did not stop within %.0f s and is killed", self.child.pid, grace_seconds
                )
        self.child.signal(signal.SIGKILL, group=True)
        self.child.wait(None)
        self.child.close()

    def _death(self) -> Failure:
        code = self.child.wait(None)
        if self.child.pid is None:
            return Failure("died", f"the process of {self.target} could not be started")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return Failure("died", f"the process of {self.target} ended by {how}")


def start_process(
    target: str, task: dict[str, Any], *, log_path: Path, imports: Iterable[str] = ()
) -> Started:
    """Call `target` ("module:function") with (task, reporter) in a child process.

    Its output goes to `log_path`. `imports` are modules that take long to load and that later processes
    need as well. Ask for its result once, or stop it.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    order = {
        "target": target,
        "task": task,
        "folder": str(Path.cwd()),
        "environ": {**KEEP_FREED_MEMORY, **os.environ},
    }
    line = json.dumps(order).encode() + b"\n"
    child = TEMPLATE.fork(log_path, [target.partition(":")[0], *imports])
    # If it has died already, its closed pipe will tell.
    with contextlib.suppress(BrokenPipeError):
        child.tell(line)
    return Started(child, target, log_path)


@dataclass(frozen=True)
class _Result:
    value: Any


def _follow(
    reading: int, on_progress: Progress, timeout_seconds: float | None, stop: threading.Event | None
) -> _Result | Failure | None:
    """Pass on the child's messages until it closes the pipe; None if it ended without a result."""
    deadline = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
    result: _Result | Failure | None = None
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while True:
            if time.monotonic() > deadline:
                raise Interrupted("the stage exceeded its time limit; its last checkpoint is kept")
            if stop is not None and stop.is_set():
                raise Interrupted("the stage was asked to stop; its last checkpoint is kept")
            if not selector.select(timeout=1.0):
                continue
            block = os.read(reading, 1 << 16)
            if not block:
                return result
            *lines, buffer = (buffer + block).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message["kind"] == "progress":
                    on_progress(message["done"], message["total"], **message["metrics"])
                elif message["kind"] == "log":
                    logging.getLogger(message["name"]).log(message["level"], "%s", message["text"])
                elif message["kind"] == "failure":
                    result = Failure(**message["value"])
                else:
                    result = _Result(message["value"])
