"""Exclusion between processes by the kernel: a lock dies with the process that holds it, kill -9 included."""

from __future__ import annotations

import fcntl
import logging
import os
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
    descriptor = _try(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            _release(descriptor, path)


@contextmanager
def shared_now(path: Path) -> Iterator[bool]:
    """Keep others from taking the lock while the block reads what it guards, without waiting.

    Any number of processes may share it. Yields False when another process holds the lock for itself.
    """
    descriptor = _try(path, fcntl.LOCK_SH)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            _leave(descriptor, path)


def is_held(path: Path) -> int | None:
    """The process id of a live holder, or None if the lock is free."""
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
    """The descriptor of the lock, once it is free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = _open(path)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = (os.pread(descriptor, 32, 0) or b"?").decode()
                log.warning("waiting for process %s, which holds the lock of %s", holder, what)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _sign(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try(path: Path, how: int = fcntl.LOCK_EX) -> int | None:
    """The descriptor of a lock that is free; a probe by `is_held` passes for a holder for an instant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_TRIES):
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            mine = _sign(descriptor, path) if how == fcntl.LOCK_EX else _is_same_file(descriptor, path)
            if mine:
                return descriptor
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _sign(descriptor: int, path: Path) -> bool:
    """Say who holds the lock; False when its file was removed meanwhile, so that it guards nothing."""
    if not _is_same_file(descriptor, path):
        return False
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return True


def _release(descriptor: int, path: Path) -> None:
    """Remove the lock file, unless it was deleted in the meantime and another process has a new one."""
    try:
        # Unlinking while held is safe because `_sign` compares inodes after the lock was taken.
        if _is_same_file(descriptor, path):
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _leave(descriptor: int, path: Path) -> None:
    """Give up a shared lock; the last to leave removes the file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
    else:
        _release(descriptor, path)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
