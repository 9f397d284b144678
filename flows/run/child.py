"""A stage's process: it reports to the run, obeys SIGTERM and SIGHUP, and never outlives the run.

Standard input is a pipe whose other end the run holds. Its end of file means that the run is gone, kill -9
included, and this process ends its whole group at once. (PR_SET_PDEATHSIG would not do: it follows the
*thread* that spawned, which an orchestrator may end early.)
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from flows.errors import failure_or_bug

STOP_SIGNALS = frozenset(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)
)


class Reporter(Protocol):
    """How work in a child reports to its parent, and learns that it should stop."""

    def progress(self, done: int, total: int, **metrics: float) -> None: ...

    def should_stop(self) -> bool: ...


class _Messages(logging.Handler):
    """The child's side: progress and log records as lines of JSON."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(logging.INFO)
        self._descriptor = descriptor
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._last_progress = 0.0

    def progress(self, done: int, total: int, **metrics: float) -> None:
        now = time.monotonic()
        if done < total and now - self._last_progress < 0.2:
            return
        self._last_progress = now
        self.send(
            "progress",
            done=done,
            total=total,
            metrics={name: float(value) for name, value in metrics.items()},
        )

    def should_stop(self) -> bool:
        return self._stop.is_set()

    def stop(self, *_: object) -> None:
        self._stop.set()

    def emit(self, record: logging.LogRecord) -> None:
        self.send("log", name=record.name, level=record.levelno, text=record.getMessage())

    def send(self, kind: str, **fields: Any) -> None:
        data = json.dumps({"kind": kind, **fields}).encode() + b"\n"
        with self._mutex:
            while data:
                data = data[os.write(self._descriptor, data) :]


def die_with_parent(descriptor: int = 0) -> None:
    """Watch a pipe whose other end the parent holds; when it closes, kill this process's whole group."""

    def watch() -> None:
        while os.read(descriptor, 4096):
            pass
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def run_child(descriptor: int) -> int:
    """Do the task that standard input names, report to the descriptor, and return the exit status."""
    messages = _Messages(descriptor)
    signal.signal(signal.SIGTERM, messages.stop)
    signal.signal(signal.SIGHUP, messages.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    order = json.loads(_read_line(0))
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["folder"])
    task = order["task"]
    logging.basicConfig(level=logging.INFO, format=_log_format(task.get("labels", {})))
    logging.getLogger().addHandler(messages)
    die_with_parent(0)
    module, _, function = order["target"].partition(":")
    try:
        value = getattr(importlib.import_module(module), function)(task, messages)
    except Exception as error:
        failure = failure_or_bug(error)
        messages.send("failure", value=asdict(failure))
        if failure.kind != "interrupted":
            _print_traceback()
        return failure.exit_status
    messages.send("result", value=value)
    return 0


def _log_format(labels: Mapping[str, str]) -> str:
    """Each line of a log names its run and artifact as key=value, so that logs can be joined and searched."""
    shown = "".join(f" {name}={value}" for name, value in labels.items()).replace("%", "%%")
    return f"%(asctime)s level=%(levelname)s{shown} logger=%(name)s %(message)s"


def _print_traceback() -> None:
    # The log may be on the very disk that is full; the parent already has the message.
    with contextlib.suppress(OSError):
        traceback.print_exc()


def _read_line(descriptor: int) -> bytes:
    # Byte by byte: a buffered reader would swallow the end of file that the parent watch waits for.
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            raise SystemExit("the parent ended before it said what to do")
        line += byte
    return line
