"""Writing large files past the page cache, behind the back of whoever computes what they hold.

The page cache costs a copy, a page of memory for every page of the file, and what it held before, all for
bytes that are not about to be read. Writing directly costs no more than a thread that waits for the disk.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import mmap
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

log = logging.getLogger(__name__)

BUFFER_BYTES = 8 << 20
_LIMIT_BYTES = 256 << 20
_ALIGNED = 4096
"""What begins and ends at multiples of this, in memory and in the file, can be written directly."""


class WriteBehind:
    """A thread that writes what it is given, in that order, at most `limit_bytes` behind its caller.

    Memory is taken 8 MiB at a time, and only as the disk falls behind.
    """

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        self._free: SimpleQueue[mmap.mmap] = SimpleQueue()
        self._unused = max(1, limit_bytes // BUFFER_BYTES)

    def create(self, path: Path) -> FileBehind:
        """Begin a new file. Raises FileExistsError when there is one."""
        return FileBehind(path, self)

    def close(self) -> None:
        """Wait for all that was given."""
        self._thread.shutdown()

    def _submit(self, function: Callable[[], None]) -> Future[None]:
        return self._thread.submit(function)

    def _take_buffer(self) -> mmap.mmap:
        with contextlib.suppress(Empty):
            return self._free.get_nowait()
        if self._unused:
            self._unused -= 1
            return mmap.mmap(-1, BUFFER_BYTES)
        return self._free.get()

    def _give_back(self, buffer: mmap.mmap) -> None:
        self._free.put(buffer)


class FileBehind:
    """One file of a `WriteBehind`; whoever begins it closes or abandons it."""

    def __init__(self, path: Path, behind: WriteBehind) -> None:
        self.path = path
        self._behind = behind
        self._buffer: mmap.mmap | None = None
        self._filled = 0
        self._error: BaseException | None = None
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._direct: bool | None = None
        """Not known before the first bytes: what does not fill a buffer is not worth it."""

    def write(self, data: bytes | memoryview) -> None:
        """Append a copy of `data`; waits only when the disk is too far behind."""
        data = memoryview(data).cast("B")
        while data:
            if self._buffer is None:
                self._buffer, self._filled = self._behind._take_buffer(), 0
            part = data[: BUFFER_BYTES - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == BUFFER_BYTES:
                self._hand_over()

    def close(self, then: Callable[[], None]) -> Future[None]:
        """End the file; when every byte is written `then` is called, in the thread that wrote them.

        The future raises what either raised, and the file is gone then.
        """
        self._hand_over()
        return self._behind._submit(lambda: self._finish(then))

    def abandon(self) -> None:
        """Remove the file."""
        self._error = InterruptedError(f"{self.path} was abandoned")
        self._hand_over()
        with contextlib.suppress(InterruptedError):
            self.close(lambda: None).result()

    def _hand_over(self) -> None:
        if self._buffer is not None:
            buffer, filled, self._buffer = self._buffer, self._filled, None
            self._behind._submit(lambda: self._write_buffer(buffer, filled))

    def _write_buffer(self, buffer: mmap.mmap, filled: int) -> None:
        try:
            if self._error is None:
                with memoryview(buffer) as whole, whole[:filled] as data:
                    self._write(data)
        except BaseException as error:
            self._error = error  # raised by the future of `close`
        finally:
            self._behind._give_back(buffer)

    def _write(self, data: memoryview) -> None:
        if self._direct is None:
            self._direct = len(data) == BUFFER_BYTES and self._set_direct(True)
        while data:
            if self._direct and len(data) < _ALIGNED:
                self._direct = self._set_direct(False)
            aligned = data[: len(data) - len(data) % _ALIGNED] if self._direct else data
            try:
                data = data[os.write(self._descriptor, aligned) :]
            except OSError as error:
                if not (self._direct and error.errno == errno.EINVAL):
                    raise
                # It may have stopped at an odd place, or wants larger multiples than this file has.
                self._direct = self._set_direct(False)

    def _set_direct(self, direct: bool) -> bool:
        """Whether the file is written directly from now on."""
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        flags = flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags)
        except OSError:
            log.info("%s is written through the page cache: its file system writes none directly", self.path)
            return False
        return direct

    def _finish(self, then: Callable[[], None]) -> None:
        try:
            os.close(self._descriptor)
            if self._error is not None:
                raise self._error
            then()
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
