"""Positioned reads straight from the shard files of a local store.

Two threads copy what is in the page cache (RWF_NOWAIT never waits for the disk). Many threads read the rest
at once, because each such read waits for the device.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pyarrow as pa

from storage.descriptors import CACHED_ONLY, READING, open_files_limit, read_into
from storage.errors import StorageError
from storage.feature_store.extents import ExtentTable
from storage.feature_store.layout import ArrayLayout
from storage.feature_store.reader import FeatureReader, Tier
from storage.feature_store.shard_files import decode_row, open_shard
from storage.feature_store.shard_index import MISSING

_TWO_FROM = 8 << 20
"""From this many bytes per request on, a second thread is worth its overhead."""
_CLOSED = -1
_KEPT_OPEN = threading.BoundedSemaphore(max(1, open_files_limit()[0] // 2))
"""Files that the readers of this process keep open, all together; past it each read opens its file."""

Read = tuple[int, int, int, int]
"""Shard, byte in its file, first and last + 1 byte of the output."""


class DiskReader(FeatureReader):
    """Reads rows of a local, directly readable array; up to `threads` reads wait for the disk at once.

    file_of: where the file of a shard is; by default below the array.
    """

    tier: Tier = "disk"

    def __init__(
        self,
        array: Path,
        layout: ArrayLayout,
        read_index: Callable[[], pa.Table],
        *,
        threads: int = 16,
        file_of: Callable[[int], Path] | None = None,
    ) -> None:
        super().__init__(layout.shape, layout.dtype, read_index)
        self._array = array
        self._layout = layout
        self._file_of = file_of or (lambda shard: array / layout.shard_key(shard))
        self._extents = ExtentTable(layout)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="feature-read")
        self._pool_process = os.getpid()
        self._descriptors = [_CLOSED] * layout.n_shards
        self._opening = threading.Lock()
        self._nowait = CACHED_ONLY

    def close(self) -> None:
        self._pool.shutdown()
        for shard, descriptor in enumerate(self._descriptors):
            if descriptor != _CLOSED:
                os.close(descriptor)
                self._descriptors[shard] = _CLOSED
                _KEPT_OPEN.release()

    def _fill(self, indices: np.ndarray, out: np.ndarray) -> None:
        for shard in self._extents.unknown_shards(indices):
            self.open(shard)
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
        target = out.reshape(-1).view(np.uint8).data
        starts = (runs.position * row_bytes).tolist()
        stops = ((runs.position + runs.length) * row_bytes).tolist()
        reads = list(zip(runs.shard.tolist(), runs.offset.tolist(), starts, stops, strict=True))
        left = iter(reads)
        if len(reads) < 2 or len(target) < _TWO_FROM:
            rest = self._copy_cached(left, target)
        else:
            # Both take from one iterator: on a busy machine, one of them may get little or no time.
            helper = self._executor().submit(self._copy_cached, left, target)
            rest = self._copy_cached(left, target)
            if not helper.cancel():
                rest += helper.result()

        def read(stripe: slice) -> None:
            for shard, offset, start, stop in rest[stripe]:
                self._read(shard, offset, target[start:stop])

        self._in_stripes(read, len(rest))

    def _copy_cached(self, reads: Iterator[Read], target: memoryview) -> list[Read]:
        """Copy what is in the page cache, and return the rest."""
        if not self._nowait:
            return list(reads)
        rest: list[Read] = []
        preadv, descriptors, nowait = os.preadv, self._descriptors, self._nowait
        for shard, offset, start, stop in reads:
            n_read = 0
            try:
                if descriptors[shard] != _CLOSED:
                    n_read = preadv(descriptors[shard], (target[start:stop],), offset, nowait)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._nowait = 0  # this file system cannot say what is cached
                return [*rest, (shard, offset, start, stop), *reads]
            if n_read < stop - start:
                rest.append((shard, offset + n_read, start + n_read, stop))
        return rest

    def _fill_encoded(self, indices: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
        target = out.view(np.uint8)

        def read(stripe: slice) -> None:
            for row, position in zip(indices[stripe].tolist(), positions[stripe].tolist(), strict=True):
                data = bytearray(int(self._extents.lengths[row]))
                shard = row // self._layout.rows_per_shard
                self._read(shard, int(self._extents.offsets[row]), memoryview(data))
                decode_row(bytes(data), target[position], self._layout, f"row {row} of {self._array}")

        self._in_stripes(read, len(indices))

    def _in_stripes(self, read: Callable[[slice], None], count: int) -> None:
        """Have every n-th of `count` things read by each of n threads, the calling one among them."""
        if not count:
            return
        stripes = min(self._threads, count)
        pool = self._executor() if stripes > 1 else self._pool
        futures = [pool.submit(read, slice(first, None, stripes)) for first in range(1, stripes)]
        try:
            read(slice(0, None, stripes))
        finally:
            wait(futures)
        for future in futures:
            future.result()

    def _read(self, shard: int, offset: int, target: memoryview) -> None:
        kept = self._descriptors[shard]
        descriptor = os.open(self._file_of(shard), READING) if kept == _CLOSED else kept
        try:
            while target:
                n_read = read_into(descriptor, target, offset)
                if not n_read:
                    raise StorageError(
                        f"shard {shard} of {self._array} is truncated at byte {offset}: verify the store"
                    )
                offset, target = offset + n_read, target[n_read:]
        finally:
            if kept == _CLOSED:
                os.close(descriptor)

    def open(self, shard: int) -> None:
        """Read a shard's index, unless that was done, and keep its file open while descriptors last."""
        with self._opening:
            if not self._extents.unknown_shards(np.array([shard * self._layout.rows_per_shard])):
                return
            opened = open_shard(self._array, self._layout, shard, self._file_of(shard))
            if opened is None:
                self._extents.set(shard, None)
                return
            descriptor, index = opened
            if _KEPT_OPEN.acquire(blocking=False):
                self._descriptors[shard] = descriptor
            else:
                os.close(descriptor)
            self._extents.set(shard, index)

    def _executor(self) -> ThreadPoolExecutor:
        """The pool of this process: a forked child inherits none of its parent's threads."""
        if self._pool_process != os.getpid():
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="feature-read")
            self._pool_process = os.getpid()
        return self._pool
