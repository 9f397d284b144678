"""Reading and writing at a place of an open file, and the limits of open files, as each system has them."""

from __future__ import annotations

import os
import threading
from importlib import import_module
from typing import Any

BINARY: int = getattr(os, "O_BINARY", 0)
"""Windows would translate line ends."""
READING: int = os.O_RDONLY | BINARY | getattr(os, "O_NONBLOCK", 0)
"""Without waiting: a pipe with the name of a file is an empty file."""
CACHED_ONLY: int = getattr(os, "RWF_NOWAIT", 0)
"""For `read_into`: only what is in the page cache; 0 where that cannot be asked."""

_FEW_FILES = 512
"""What Windows grants."""
_HAS_PLACES = hasattr(os, "preadv")
_moving = threading.Lock()
"""Without positioned reads a file has one position, which threads share."""


def read_at(descriptor: int, n_bytes: int, offset: int) -> bytes:
    """Up to `n_bytes` of the file from `offset`."""
    if _HAS_PLACES:
        return os.pread(descriptor, n_bytes, offset)
    with _moving:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, n_bytes)


def read_into(descriptor: int, target: memoryview, offset: int, flags: int = 0) -> int:
    """Fill `target`, or its beginning, from `offset` of the file; returns how many bytes were read."""
    if _HAS_PLACES:
        return os.preadv(descriptor, (target,), offset, flags)
    data = read_at(descriptor, len(target), offset)
    target[: len(data)] = data
    return len(data)


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write a few bytes at a place of the file."""
    if _HAS_PLACES:
        os.pwrite(descriptor, data, offset)
        return
    with _moving:
        os.lseek(descriptor, offset, os.SEEK_SET)
        os.write(descriptor, data)


def open_files_limit() -> tuple[int, int]:
    """How many files this process may have open, and to how many it may raise that."""
    try:
        resource: Any = import_module("resource")
    except ModuleNotFoundError:
        return _FEW_FILES, _FEW_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft, hard
