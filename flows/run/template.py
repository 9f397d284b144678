"""The process that a run's stages are forked from, so that what they all import is loaded once.

It computes nothing and starts no thread, so that a fork of it is as good as a new process. A stage's process
is its child; the process that asked for it learns its id and its exit status over a socket of its own.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import IO, NoReturn

from flows.errors import StageError
from flows.run.child import STOP_SIGNALS, run_child

KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}
"""For glibc: memory that one layer frees is reused by the next. By default every large map is returned to the
kernel and comes back as zeroed pages: half of the CPU time at 640x640 (docs/benchmarks.md)."""

_MESSAGE = 1 << 16


def require_forks() -> None:
    """Raise StageError where processes cannot be forked as here: anywhere but on Linux."""
    if sys.platform != "linux":
        raise StageError(
            f"a run forks a process per stage, which needs Linux, not {sys.platform}: use WSL 2 on Windows, "
            "a Linux container on a Mac"
        )


class Forked:
    """A process that was forked for this one. It keeps its id until `close`.

    If the template was killed, so that it cannot be told how the process ends, its exit status is SIGKILL's.
    """

    def __init__(self, line: socket.socket, task: int, messages: int) -> None:
        self._line = line
        self._task = task
        self.messages = messages
        """What it writes about its work."""
        self.exit_status: int | None = None
        """Negative for a signal, as for `subprocess.Popen`; None while it runs."""

    @cached_property
    def pid(self) -> int | None:
        """Its id; None if the template was killed before it could fork."""
        self._line.settimeout(None)
        said = self._line.recv(_MESSAGE)
        return int(said) if said else None

    def is_forked(self, within: float) -> bool:
        """Whether the template has come to it, which loads modules first, after at most this many seconds."""
        if "pid" in self.__dict__:
            return True
        self._line.settimeout(within)
        try:
            self._line.recv(_MESSAGE, socket.MSG_PEEK)
        except TimeoutError:
            return False
        return True

    def tell(self, order: bytes) -> None:
        """Write to its standard input, whose end ends it. Raises BrokenPipeError."""
        while order:
            order = order[os.write(self._task, order) :]

    def wait(self, seconds: float | None) -> int:
        """Wait until it ends, and return its exit status. Raises TimeoutError."""
        if self.exit_status is None and self.pid is not None:
            self._line.settimeout(seconds)
            if said := self._line.recv(_MESSAGE):
                self.exit_status = int(said)
        if self.exit_status is None:
            self.exit_status = -signal.SIGKILL
        return self.exit_status

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        with suppress(BlockingIOError):
            self.wait(0)
        return self.exit_status is None

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to it, or to its whole group, unless that is gone."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)

    def close(self) -> None:
        """Give its id back."""
        for descriptor in (self._task, self.messages):
            os.close(descriptor)
        self._line.close()


class Template:
    """This process's side: one template, started when it is first needed; it ends with this process."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._socket: socket.socket | None = None
        self._of = 0

    def fork(self, log_path: Path, imports: Iterable[str]) -> Forked:
        """Fork a process that waits for its task; its output goes to the log.

        `imports` are loaded in the template first, and so by no later process again.
        """
        with log_path.open("ab") as log:
            line, far_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            task, to_task = os.pipe()
            from_messages, messages = os.pipe()
            child = Forked(line, to_task, from_messages)
            given = [far_line.fileno(), task, messages, log.fileno()]
            try:
                self._ask(json.dumps(sorted(imports)).encode(), given, log)
            except BaseException:
                child.close()
                raise
            finally:
                far_line.close()
                os.close(task)
                os.close(messages)
        return child

    def end(self) -> None:
        """End the template, whose children go on; the next fork starts another."""
        with self._mutex:
            if self._socket is not None and self._of == os.getpid():
                self._socket.close()
            self._socket = None

    def _ask(self, message: bytes, descriptors: list[int], log: IO[bytes]) -> None:
        with self._mutex:
            if self._socket is not None and self._of == os.getpid():
                with suppress(BrokenPipeError, ConnectionResetError):
                    socket.send_fds(self._socket, [message], descriptors)
                    return
                self._socket.close()
            self._socket, self._of = _start(log), os.getpid()
            # Where it ends at once, the child has no id, and the log says why.
            with suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(self._socket, [message], descriptors)


def _start(log: IO[bytes]) -> socket.socket:
    """Start a template; why it cannot be started is in the log."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "flows.run.template"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**KEEP_FREED_MEMORY, **os.environ},
            start_new_session=True,
        )
    return ours


TEMPLATE = Template()


class _Server:
    """The template's side: it forks when it is asked to, and reports how its children end."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._running: dict[socket.socket, int] = {}
        self._ended: dict[socket.socket, int] = {}
        self._woken, self._wake = os.pipe()
        for descriptor in (self._woken, self._wake):
            os.set_blocking(descriptor, False)
        # A scheduler sends these to all processes of a job. Without the template, nothing would tell whether
        # a stage has stopped at its checkpoint; it ends when its socket is closed.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake)
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def serve(self) -> None:
        """Fork until the other end is closed. A child does its work, and does not return."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._requests:
                    message, descriptors, _, _ = socket.recv_fds(self._requests, _MESSAGE, 4)
                    if not message:
                        return
                    line, *given = descriptors
                    if self._fork(socket.socket(fileno=line), given, json.loads(message)) == 0:
                        _end_with(run_child(given[1]))
                elif key.fileobj == self._woken:
                    os.read(self._woken, 4096)
                    self._report()
                else:
                    self._forget(key.fileobj)  # type: ignore[arg-type]

    def _fork(self, line: socket.socket, given: list[int], imports: list[str]) -> int | None:
        """The child's id, 0 in the child, None if the system has no room for another process."""
        for name in imports:
            # The child imports it again, and says why that fails.
            with suppress(Exception):
                importlib.import_module(name)
        pid: int | None = None
        # What was imported stays: no collection in a child looks through it, which would copy its pages, too.
        gc.freeze()
        # A request to stop may come as soon as the fork: it waits until the child listens, see `run_child`.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:
            os.write(given[-1], f"no process could be started: {error}\n".encode())
        if pid == 0:
            gc.enable()
            self._become_child(line, *given)
            return pid
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        for descriptor in given:
            os.close(descriptor)
        if pid is None:
            line.close()
            return None
        self._running[line] = pid
        self._selector.register(line, selectors.EVENT_READ)
        with suppress(BrokenPipeError):  # `_forget` learns of it, too
            line.send(str(pid).encode())
        return pid

    def _become_child(self, line: socket.socket, task: int, messages: int, log: int) -> None:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, *STOP_SIGNALS):
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        for other in (self._requests, line, *self._running, *self._ended):
            other.close()
        for descriptor in (self._woken, self._wake):
            os.close(descriptor)
        for descriptor, at in ((task, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, at)
        for descriptor in (task, log):
            os.close(descriptor)

    def _report(self) -> None:
        """Tell of children that have ended; each keeps its id until whoever asked for it has read that."""
        for line, pid in list(self._running.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            self._ended[line] = self._running.pop(line)
            how = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert how is not None
            if line.fileno() == -1:
                self._reap(line)
                continue
            status = how.si_status if how.si_code == os.CLD_EXITED else -how.si_status
            with suppress(BrokenPipeError):
                line.send(str(status).encode())

    def _forget(self, line: socket.socket) -> None:
        """The other end is closed: nothing asks for this child again, even if it still runs."""
        self._selector.unregister(line)
        line.close()
        self._reap(line)

    def _reap(self, line: socket.socket) -> None:
        if line in self._ended:
            os.waitpid(self._ended.pop(line), 0)


def _end_with(status: int) -> NoReturn:
    """End this process at once: taking all modules down one by one takes 2 s, and its work is done."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    gc.disable()  # imports leave next to no garbage: looking for it takes a third of their time
    server = _Server(socket.socket(fileno=os.dup(0)))
    # It has started, so it keeps no file of the first stage's disk open.
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    server.serve()
    _end_with(0)
