"""The kernel's lock of an open file: `flock`, or on Windows `msvcrt.locking`.

Either dies with the process that holds it, and holds between two descriptors of one process. Windows has no
shared locks and no waiting ones, so there a shared lock is one of a number of places, which an exclusive one
takes all, and waiting is trying again.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

_PLACES = 64
"""Processes that can share a lock at once, where there is no `flock`."""
_FIRST_PLACE = 1 << 30
"""Locked bytes cannot be read by others there, so they lie behind those that say who holds the lock."""
_RETRY_SECONDS = 0.05

try:
    import fcntl
except ModuleNotFoundError:
    _windows: Any = import_module("msvcrt")
    HAS_FLOCK = False
else:
    HAS_FLOCK = True


def lock_now(descriptor: int, *, shared: bool = False) -> None:
    """Take the lock, alone or shared. Raises BlockingIOError when another descriptor holds it."""
    if HAS_FLOCK:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    elif shared:
        _share(descriptor)
    else:
        _set(descriptor, _windows.LK_NBLCK, 0, _PLACES)


def lock_waiting(descriptor: int) -> None:
    """Take the lock alone, as soon as it is free."""
    if HAS_FLOCK:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    while True:
        try:
            lock_now(descriptor)
            return
        except BlockingIOError:
            time.sleep(_RETRY_SECONDS)


def release(descriptor: int, path: Path, *, shared: bool = False) -> None:
    """Give up a lock. Its file goes, too, unless others share it, or another file has its name."""
    try:
        if HAS_FLOCK:
            if shared:
                lock_now(descriptor)
            # Safe because a lock counts only if its file is still the one at its path.
            if is_same_file(descriptor, path):
                path.unlink(missing_ok=True)
    except BlockingIOError:
        pass  # others share it
    finally:
        os.close(descriptor)
    if not HAS_FLOCK:
        with suppress(PermissionError):  # another process has it open, and removes it when it leaves
            path.unlink(missing_ok=True)


def is_same_file(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at `path`."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _share(descriptor: int) -> None:
    start = random.randrange(_PLACES)
    for place in range(_PLACES):
        try:
            _set(descriptor, _windows.LK_NBLCK, (start + place) % _PLACES, 1)
            return
        except BlockingIOError:
            continue
    raise BlockingIOError("the lock is held")


def _set(descriptor: int, how: int, first: int, count: int) -> None:
    os.lseek(descriptor, _FIRST_PLACE + first, os.SEEK_SET)
    try:
        _windows.locking(descriptor, how, count)
    except PermissionError as error:
        raise BlockingIOError("the lock is held") from error
