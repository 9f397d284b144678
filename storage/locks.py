"""Exclusion between processes by the kernel: a lock dies with the process that holds it, kill -9 included."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from storage.descriptors import BINARY, READING, read_at, write_at
from storage.kernel_locks import is_same_file, lock_now, lock_waiting, release

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
        release(descriptor, path)


def exclusive_now(path: Path) -> AbstractContextManager[bool]:
    """As `exclusive`, without waiting: yields False when another holds the lock."""
    return _now(path, shared=False)


def shared_now(path: Path) -> AbstractContextManager[bool]:
    """Keep others from taking the lock while the block reads what it guards, without waiting.

    Any number of processes may share it. Yields False when another process holds the lock for itself.
    """
    return _now(path, shared=True)


@contextmanager
def _now(path: Path, *, shared: bool) -> Iterator[bool]:
    descriptor = _try(path, shared=shared)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            release(descriptor, path, shared=shared)


def is_held(path: Path) -> int | None:
    """The process id of a live holder, or None if the lock is free."""
    try:
        descriptor = os.open(path, READING)
    except FileNotFoundError:
        return None
    try:
        lock_now(descriptor, shared=True)
        return None
    except BlockingIOError:
        return int(read_at(descriptor, 32, 0) or b"0")
    finally:
        os.close(descriptor)


def _acquire(path: Path, what: str) -> int:
    """The descriptor of the lock, once it is free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = _open(path)
        try:
            try:
                lock_now(descriptor)
            except BlockingIOError:
                holder = (read_at(descriptor, 32, 0) or b"?").decode()
                log.warning("waiting for process %s, which holds the lock of %s", holder, what)
                lock_waiting(descriptor)
            if _sign(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try(path: Path, *, shared: bool) -> int | None:
    """The descriptor of a lock that is free; a probe by `is_held` passes for a holder for an instant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_TRIES):
        descriptor = _open(path)
        try:
            lock_now(descriptor, shared=shared)
            mine = is_same_file(descriptor, path) if shared else _sign(descriptor, path)
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
    return os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o644)


def _sign(descriptor: int, path: Path) -> bool:
    """Say who holds the lock; False when its file was removed meanwhile, so that it guards nothing."""
    if not is_same_file(descriptor, path):
        return False
    os.ftruncate(descriptor, 0)
    write_at(descriptor, str(os.getpid()).encode(), 0)
    return True
