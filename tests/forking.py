"""Processes forked from one that has loaded what takes seconds to load, and nothing of the project."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import IO, Any

PROJECT = Path(__file__).resolve().parents[1]

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("torch", "torch.utils.tensorboard", "torchvision", "torchvision.transforms.v2"),
        *("matplotlib.backends.backend_svg", "matplotlib.figure"),
        *("pandas", "pyarrow.dataset", "scipy.io", "zarr"),
        # What Prefect loads; Prefect itself reads its settings when it is imported.
        *("griffe", "httpx", "jsonschema", "opentelemetry.trace", "pendulum", "prometheus_client"),
        *("pydantic_settings", "rich.console", "websockets"),
    ]
)


def start(function: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """Call a function of a module in a process of its own."""
    return _started(_call, function, *arguments)


class Program:
    """A function in a process of its own, in the project's folder, with this process's environment.

    It prints into files, which may be one. What else it has is as of `subprocess.Popen`.
    """

    def __init__(self, function: Callable[..., None], *arguments: object, output: Path, error: Path) -> None:
        self._process = _started(_call_alone, output, error, dict(os.environ), function, *arguments)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _started(target: Callable[..., None], *arguments: object) -> ForkServerProcess:
    process = _FORKS.Process(target=target, args=arguments)
    process.start()
    return process


def _call(function: Callable[..., None], *arguments: object) -> None:
    gc.freeze()  # what was loaded stays; looking through it for garbage again and again takes a second
    function(*arguments)


def _call_alone(output: Path, error: Path, environment: dict[str, str], *call: Any) -> None:
    for number, path in ((1, output), (2, error)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(PROJECT)
    _call(*call)


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


class ForkedTemplate:
    """The process that a run forks its stages from, forked from this one as it is now.

    Made while this process has no thread and nothing of the project, it is what a new interpreter with
    `-m flows.run.template` would be after some seconds of imports.
    """

    def __init__(self) -> None:
        self._begin, begin = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests, requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            self._begin.close()
            self._requests.close()
            _become_template(begin, requests)
        begin.close()
        requests.close()

    def take_its_place(self) -> None:
        """Have `flows.run.template` start it in place of the first interpreter; any other is a new one."""
        from flows.run import template

        another = template._start
        template._start = lambda log: another(log) if self._begin.fileno() == -1 else self._start(log)

    def _start(self, log: IO[bytes]) -> socket.socket:
        socket.send_fds(self._begin, [json.dumps(dict(os.environ)).encode()], [log.fileno()])
        self._begin.close()
        return self._requests


def _become_template(begin: socket.socket, requests: socket.socket) -> None:
    """Wait until it is wanted, and serve; end with the process that it was forked from."""
    environment, descriptors, _, _ = socket.recv_fds(begin, 1 << 20, 1)
    if not environment:
        os._exit(0)
    (log,) = descriptors
    begin.close()
    os.setsid()
    with Path(os.devnull).open("wb") as nowhere:
        for descriptor, at in ((requests.fileno(), 0), (nowhere.fileno(), 1), (log, 2)):
            os.dup2(descriptor, at)
    os.close(log)
    requests.close()
    os.environ.clear()
    os.environ.update(json.loads(environment))
    runpy.run_module("flows.run.template", run_name="__main__", alter_sys=True)
