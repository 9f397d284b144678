"""Writing large files past the page cache, where the file system lets it.

The page cache costs a copy, a page of memory for every page of the file, and what it held before, all for
bytes that are not about to be read.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from storage.descriptors import BINARY

_PAST_THE_CACHE: int
try:
    import fcntl
except ModuleNotFoundError:  # on Windows
    _PAST_THE_CACHE = 0
else:
    _PAST_THE_CACHE = getattr(os, "O_DIRECT", 0)

_ALIGNED = 4096
"""What begins and ends at multiples of this, in memory and in the file, can be written directly."""
_AT_ONCE = 8 << 20


def write_new(file: Path, parts: Sequence[bytes | memoryview], *, flush: bool) -> os.stat_result:
    """Write `parts`, one after another, to a new file; returns its stat, which a reader will find.

    The aligned beginning of the first part is written directly. Raises FileExistsError when the file exists;
    whatever else goes wrong, the file is gone.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
    try:
        try:
            rest = _write_directly(descriptor, memoryview(parts[0]).cast("B"))
            for part in (rest, *parts[1:]):
                _write(descriptor, memoryview(part).cast("B"))
            if flush:
                os.fsync(descriptor)
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _write_directly(descriptor: int, data: memoryview) -> memoryview:
    """What of the data is left; all where the system, the disk or the data's place in memory refuses."""
    if not _PAST_THE_CACHE:
        return data
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _PAST_THE_CACHE)
        while len(data) >= _ALIGNED:
            n_bytes = min(_AT_ONCE, len(data))
            data = data[os.write(descriptor, data[: n_bytes - n_bytes % _ALIGNED]) :]
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    return data


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
