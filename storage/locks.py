"""Exclusion between processes by the kernel: a lock dies with the process that holds it, kill -9 included."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

_TRIES = 3
_PAUSE_SECONDS = 0.005


@contextmanager
def exclusive(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file at `path`; a second process waits here until the first releases it or dies.

    The file goes when the lock is released; `what` names the guarded thing in the log while waiting.
    Threads of one process exclude each other too, since each call opens a descriptor of its own.
    """
    descriptor = _acquire(path, what)
    try:
        yield
    finally:
        _release(descriptor, path)


@contextmanager
def exclusive_now(path: Path) -> Iterator[bool]:
    """As `exclusive`, without waiting: yields False when another holds the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _try(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            _release(descriptor, path)


class LockSeries:
    """`exclusive_now` for whoever takes a great many locks, one after another, each for a moment.

    Each is a second name of one file that is locked all the time, which costs a tenth of a file made, locked
    and removed. Who meanwhile waits for one of them waits for the end of the series.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path

    @contextmanager
    def exclusive_now(self, path: Path) -> Iterator[bool]:
        try:
            os.link(self._path, path)
        except OSError:
            # Held, or left by a killed process; the first in its folder; or a file has but one name here.
            with exclusive_now(path) as alone:
                yield alone
            return
        try:
            yield True
        finally:
            _unlink(self._descriptor, path)


@contextmanager
def lock_series(path: Path) -> Iterator[LockSeries]:
    """Its locks are names of a new file beside `path`, which goes at the end."""
    for abandoned in path.parent.glob(f"{path.name}.*"):
        if is_held(abandoned) is None:
            abandoned.unlink(missing_ok=True)
    # A file of its own: that of a killed series may have left names, which would seem to be held by this one.
    own = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = _acquire(own, "a series of locks")
    try:
        yield LockSeries(descriptor, own)
    finally:
        _release(descriptor, own)


def is_held(path: Path) -> int | None:
    """The process id of a live holder, or None when nobody holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return int(os.pread(descriptor, 32, 0) or b"0")
    finally:
        os.close(descriptor)


def _acquire(path: Path, what: str) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _flock(descriptor, what)
            if _is_same_file(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try(path: Path) -> int | None:
    """The descriptor of a lock that is free; a probe by `is_held` passes for a holder for an instant."""
    for _ in range(_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same_file(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def _release(descriptor: int, path: Path) -> None:
    try:
        _unlink(descriptor, path)
    finally:
        os.close(descriptor)


def _unlink(descriptor: int, path: Path) -> None:
    """Remove the lock file, unless it was deleted meanwhile and what lies there is another's lock."""
    # Unlinking while held is safe because _acquire compares inodes after it got the lock.
    if _is_same_file(descriptor, path):
        path.unlink(missing_ok=True)


def _flock(descriptor: int, what: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = (os.pread(descriptor, 32, 0) or b"?").decode()
        log.info("waiting for process %s, which has the lock of %s", holder, what)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
