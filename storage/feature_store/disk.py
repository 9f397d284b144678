"""Positioned reads straight from the shard files of a local store.

What lies in the page cache is copied by the calling thread and at most one helper (RWF_NOWAIT never waits for
the disk); what does not is read by many threads at once, because a cold read is a wait for the device. A long
run is read in order instead, by one thread: the kernel then reads ahead, and keeps it in large folios, which
are copied out in half the time of single pages.
"""

from __future__ import annotations

import errno
import itertools
import os
import resource
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa

from storage.errors import StorageError
from storage.feature_store.extents import ExtentTable
from storage.feature_store.layout import ArrayLayout
from storage.feature_store.reader import FeatureReader, Tier
from storage.feature_store.shard_files import decode_row, open_shard
from storage.feature_store.shard_index import MISSING

_LONG_RUN = 4 << 20
_IN_ORDER_READ = 256 << 10
"""Few enough bytes at a time that the kernel sees a file read in order."""
_HELPER_FROM = 1 << 20
"""Bytes of a request from which a helper thread pays for its hand-over."""
_SHARES = 16
_CLOSED = -1
_LOAD = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
_KEPT_OPEN = threading.BoundedSemaphore(max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
"""Files that the readers of this process keep open, all together; past it each read opens its file."""

Read = tuple[int, int, int, int]
"""Shard, byte in its file, first and last + 1 byte of the output."""


class DiskReader(FeatureReader):
    """Reads rows of a local, directly readable array; up to `threads` reads wait for the disk at once."""

    tier: Tier = "disk"

    def __init__(
        self,
        array: Path,
        layout: ArrayLayout,
        read_index: Callable[[], pa.Table],
        *,
        threads: int = 16,
    ) -> None:
        super().__init__(layout.shape, layout.dtype, read_index)
        self._array = array
        self._layout = layout
        self._extents = ExtentTable(layout)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="feature-read")
        self._pool_process = os.getpid()
        self._descriptors = [_CLOSED] * layout.n_shards
        self._opening = threading.Lock()
        self._nowait = os.RWF_NOWAIT

    def close(self) -> None:
        self._pool.shutdown()
        for shard, descriptor in enumerate(self._descriptors):
            if descriptor != _CLOSED:
                os.close(descriptor)
                self._descriptors[shard] = _CLOSED
                _KEPT_OPEN.release()

    def _fill(self, indices: np.ndarray, out: np.ndarray) -> None:
        for shard in self._extents.unknown_shards(indices):
            self._open(shard)
        positions = np.arange(len(indices))
        missing = self._extents.offsets[indices] == MISSING
        if missing.any():
            out[missing] = self._layout.fill_value
            positions = positions[~missing]
        if not len(positions):
            return
        if self._layout.has_fixed_rows:
            self._fill_raw(indices[positions], positions, out)
        else:
            self._fill_encoded(indices[positions], positions, out)

    def _fill_raw(self, indices: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
        row_bytes = self._layout.row_bytes
        runs = self._extents.runs(indices, positions, max_rows=len(indices))
        start = runs.position * row_bytes
        stop = start + runs.length * row_bytes
        target = out.reshape(-1).view(np.uint8).data
        reads: list[Read] = list(
            zip(runs.shard.tolist(), runs.offset.tolist(), start.tolist(), stop.tolist(), strict=True)
        )
        in_order: list[Read] = []
        if runs.length.max() * row_bytes > _LONG_RUN:
            reads, in_order = self._split(reads, target)
        rest = self._copy_cached(reads, target) if self._nowait and reads else reads
        stripes = [rest[i :: self._threads] for i in range(min(self._threads, len(rest)))]
        jobs = [partial(self._read, stripe, target) for stripe in stripes]
        jobs += [partial(self._read, _parts(read, _IN_ORDER_READ), target) for read in in_order]
        if jobs:
            self._run(jobs)

    def _split(self, reads: list[Read], target: memoryview) -> tuple[list[Read], list[Read]]:
        """Pieces to be copied or read by anyone, and long runs to be read in order."""
        pieces: list[Read] = []
        in_order: list[Read] = []
        for read in reads:
            if read[3] - read[2] <= _LONG_RUN or self._seems_cached(read, target):
                pieces += _parts(read, _LONG_RUN)
            else:
                in_order.append(read)
        return pieces, in_order

    def _seems_cached(self, read: Read, target: memoryview) -> bool:
        """Whether both ends of a long run are in the page cache; the bytes read are the right ones anyway."""
        shard, offset, start, stop = read
        last = stop - 1
        ends = [(shard, offset, start, start + 1), (shard, offset + last - start, last, stop)]
        return bool(self._nowait) and not self._copy_some(ends, target)

    def _fill_encoded(self, indices: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
        target = out.view(np.uint8)

        def read(stripe: slice) -> None:
            for row, position in zip(indices[stripe].tolist(), positions[stripe].tolist(), strict=True):
                shard = row // self._layout.rows_per_shard
                data = bytearray(int(self._extents.lengths[row]))
                self._read([(shard, int(self._extents.offsets[row]), 0, len(data))], memoryview(data))
                decode_row(bytes(data), target[position], self._layout, f"row {row} of {self._array}")

        stripes = min(self._threads, len(indices))
        self._run([partial(read, slice(first, None, stripes)) for first in range(stripes)])

    def _copy_cached(self, reads: list[Read], target: memoryview) -> list[Read]:
        """Copy what the page cache holds, and return the rest.

        A helper takes shares too where a processor is idle: on a busy one it would hold the others up.
        """
        if len(target) < _HELPER_FROM or len(reads) < 2 or not _has_idle_processor():
            return self._copy_some(reads, target)
        size = -(-len(reads) // _SHARES)
        shares = deque(reads[start : start + size] for start in range(0, len(reads), size))
        helper = self._executor().submit(self._copy_shares, shares, target)
        rest = self._copy_shares(shares, target)
        return rest if helper.cancel() else rest + helper.result()

    def _copy_shares(self, shares: deque[list[Read]], target: memoryview) -> list[Read]:
        rest: list[Read] = []
        while True:
            try:
                share = shares.popleft()
            except IndexError:  # the other thread took the last
                return rest
            rest += self._copy_some(share, target)

    def _copy_some(self, reads: Sequence[Read], target: memoryview) -> list[Read]:
        rest: list[Read] = []
        preadv, descriptors, nowait = os.preadv, self._descriptors, self._nowait
        for at, (shard, offset, start, stop) in enumerate(reads):
            if descriptors[shard] == _CLOSED:
                rest.append(reads[at])
                continue
            try:
                n_read = preadv(descriptors[shard], (target[start:stop],), offset, nowait)
            except BlockingIOError:
                n_read = 0
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._nowait = 0  # this file system cannot say what is cached
                return [*rest, *reads[at:]]
            if n_read < stop - start:
                rest.append((shard, offset + n_read, start + n_read, stop))
        return rest

    def _read(self, reads: Sequence[Read], target: memoryview) -> None:
        for shard, of_shard in itertools.groupby(reads, key=itemgetter(0)):
            with self._file(shard) as descriptor:
                for read in of_shard:
                    self._read_whole(descriptor, read, target)

    def _read_whole(self, descriptor: int, read: Read, target: memoryview) -> None:
        shard, offset, start, stop = read
        while start < stop:
            n_read = os.preadv(descriptor, (target[start:stop],), offset)
            if not n_read:
                raise StorageError(
                    f"shard {shard} of {self._array} is truncated at byte {offset}: verify the store"
                )
            offset, start = offset + n_read, start + n_read

    @contextmanager
    def _file(self, shard: int) -> Iterator[int]:
        """The descriptor of a shard's file: one that is kept open, or one for now."""
        kept = self._descriptors[shard]
        if kept != _CLOSED:
            yield kept
            return
        descriptor = os.open(self._array / self._layout.shard_key(shard), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, shard: int) -> None:
        """Read a shard's index, and keep its file open while descriptors last."""
        with self._opening:
            if not self._extents.unknown_shards(np.array([shard * self._layout.rows_per_shard])):
                return
            opened = open_shard(self._array, self._layout, shard)
            if opened is None:
                self._extents.set(shard, None)
                return
            descriptor, index = opened
            if _KEPT_OPEN.acquire(blocking=False):
                self._descriptors[shard] = descriptor
            else:
                os.close(descriptor)
            self._extents.set(shard, index)

    def _run(self, jobs: Sequence[Callable[[], None]]) -> None:
        if len(jobs) == 1:
            jobs[0]()
            return
        for future in [self._executor().submit(job) for job in jobs]:
            future.result()

    def _executor(self) -> ThreadPoolExecutor:
        """The pool of this process: a forked child inherits none of its parent's threads."""
        if self._pool_process != os.getpid():
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="feature-read")
            self._pool_process = os.getpid()
        return self._pool


def _parts(read: Read, size: int) -> list[Read]:
    shard, offset, start, stop = read
    return [
        (shard, offset + first - start, first, min(first + size, stop)) for first in range(start, stop, size)
    ]


def _has_idle_processor() -> bool:
    """True when fewer threads run on the machine now, this one included, than the process may use."""
    running = int(os.pread(_LOAD, 64, 0).split()[3].partition(b"/")[0])
    return running < len(os.sched_getaffinity(0))
