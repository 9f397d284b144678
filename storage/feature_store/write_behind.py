"""Writing large files past the page cache, behind the back of whoever computes what they hold.

The page cache costs a copy, a page of memory for every page of the file, and what it held before, all for
bytes that are not about to be read. Writing directly costs no more than a thread that waits for the disk.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

import numpy as np
import numpy.typing as npt

from storage.feature_store.buffers import allocate_buffer

log = logging.getLogger(__name__)

BUFFER_BYTES = 8 << 20
_LIMIT_BYTES = 256 << 20
_ALIGNED = 4096
"""What begins and ends at multiples of this, in memory and in the file, can be written directly."""

Bytes = npt.NDArray[np.uint8]


class Hasher(Protocol):
    def update(self, data: memoryview, /) -> None: ...


class WriteBehind:
    """Two threads that digest and write what they are given, in that order, behind their caller.

    They hold up to `limit_bytes`: memory is taken 8 MiB at a time, and only as the disk falls behind.
    """

    writes_directly = True
    """Until a file system refuses."""

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._digester = ThreadPoolExecutor(1, thread_name_prefix="digest-behind")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        self._free: SimpleQueue[Bytes] = SimpleQueue()
        self._unused = max(1, limit_bytes // BUFFER_BYTES)

    def create(self, path: Path) -> FileBehind:
        """Begin a new file. Raises FileExistsError when there is one."""
        return FileBehind(path, self)

    def close(self) -> None:
        """Wait for all that was given."""
        self._digester.shutdown()
        self._writer.shutdown()

    def take_buffer(self) -> Bytes:
        with contextlib.suppress(Empty):
            return self._free.get_nowait()
        if self._unused:
            self._unused -= 1
            return allocate_buffer((BUFFER_BYTES,), np.uint8)
        return self._free.get()

    def give_back(self, buffer: Bytes) -> None:
        self._free.put(buffer)

    def submit(self, digest: Callable[[], None], write: Callable[[], None]) -> None:
        """Have both called, one after the other; neither may raise.

        Raises RuntimeError after `close`, and when the interpreter is about to end.
        """

        def digest_and_go_on() -> None:
            digest()
            try:
                self._writer.submit(write)
            except RuntimeError:  # the interpreter ends; whoever waits for the file must not wait for ever
                write()

        self._digester.submit(digest_and_go_on)


class FileBehind:
    """One file of a `WriteBehind`; whoever begins it closes or abandons it."""

    def __init__(self, path: Path, behind: WriteBehind) -> None:
        self.path = path
        self._behind = behind
        self._buffer: Bytes | None = None
        self._filled = 0
        self._to_digest: list[tuple[Hasher, Bytes]] = []
        self._error: BaseException | None = None
        self._file = path.open("xb", buffering=0)
        self._direct: bool | None = None
        """Not known before the first bytes: what does not fill a buffer is not worth it."""

    def write(self, data: bytes | memoryview | np.ndarray, hasher: Hasher | None = None) -> None:
        """Append a copy of `data`; waits only when the disk is too far behind.

        `hasher` is updated with it, by the time that the file is closed.
        """
        rest = np.frombuffer(data, np.uint8)
        while len(rest):
            if self._buffer is None:
                self._buffer, self._filled = self._behind.take_buffer(), 0
            place = self._buffer[self._filled : self._filled + len(rest)]
            np.copyto(place, rest[: len(place)])
            if hasher is not None:
                self._to_digest.append((hasher, place))
            self._filled += len(place)
            rest = rest[len(place) :]
            if self._filled == BUFFER_BYTES:
                self._hand_over()

    def close(self, then: Callable[[os.stat_result], None]) -> Future[None]:
        """End the file; when every byte is digested and written, `then` is called in the thread that wrote.

        It gets the file's stat of that moment. The future raises what any of these raised, and the file is
        gone then, unless the disk does not even let it go.
        """
        done: Future[None] = Future()
        try:
            self._hand_over()
            self._behind.submit(lambda: None, lambda: self._finish(then, done))
        except BaseException:
            self._remove()
            raise
        return done

    def abandon(self) -> None:
        """Remove the file."""
        self._error = InterruptedError(f"{self.path} was abandoned")
        with contextlib.suppress(RuntimeError):
            # Waits. Why it is abandoned says more than what writing may have met.
            self.close(lambda stat: None).exception()

    def _hand_over(self) -> None:
        if self._buffer is None:
            return
        buffer, data, to_digest = self._buffer, self._buffer[: self._filled], self._to_digest
        self._buffer, self._to_digest = None, []

        def digest() -> None:
            with self._failing():
                for hasher, part in to_digest:
                    hasher.update(part.data)

        def write() -> None:
            with self._failing():
                if self._error is None:
                    self._write(data)
            self._behind.give_back(buffer)

        self._behind.submit(digest, write)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """What is raised meanwhile is raised by the future of `close`."""
        try:
            yield
        except BaseException as error:
            self._error = self._error or error

    def _write(self, data: Bytes) -> None:
        if self._direct is None:
            self._direct = (
                len(data) == BUFFER_BYTES and self._behind.writes_directly and self._set_direct(True)
            )
        while len(data):
            if self._direct and len(data) < _ALIGNED:
                self._direct = self._set_direct(False)
            aligned = data[: len(data) - len(data) % _ALIGNED] if self._direct else data
            try:
                data = data[os.write(self._file.fileno(), aligned.data) :]
            except OSError as error:
                if not (self._direct and error.errno == errno.EINVAL):
                    raise
                # It may have stopped at an odd place, or wants larger multiples than this file has.
                self._direct = self._set_direct(False)

    def _set_direct(self, direct: bool) -> bool:
        """Whether the file is written directly from now on."""
        descriptor = self._file.fileno()
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT)
        except OSError:
            if self._behind.writes_directly:
                self._behind.writes_directly = False
                log.info("the file system of %s writes nothing directly: the page cache is used", self.path)
            return False
        return direct

    def _finish(self, then: Callable[[os.stat_result], None], done: Future[None]) -> None:
        try:
            stat = os.fstat(self._file.fileno())
            self._file.close()
            if self._error is not None:
                raise self._error
            then(stat)
        except BaseException as error:
            self._remove()
            done.set_exception(error)
        else:
            done.set_result(None)

    def _remove(self) -> None:
        with contextlib.suppress(OSError):  # a disk that has become read-only keeps it until another run
            self.path.unlink(missing_ok=True)
