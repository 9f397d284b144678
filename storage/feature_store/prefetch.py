"""Batches of rows read ahead, in threads of this process, into a small ring of reused buffers."""

from __future__ import annotations

import math
import mmap
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

from storage.errors import StorageError


class RowReader(Protocol):
    """What is read ahead from: any tier's reader, or anything else with rows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def rows(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray: ...


def prefetch_rows(
    reader: RowReader,
    batches: Iterable[np.ndarray],
    *,
    batch_rows: int,
    ahead: int = 2,
    threads: int = 1,
    buffers: Sequence[np.ndarray] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (indices, rows) for each index array (n,) of `batches`, in order, read up to `ahead` in advance.

    **Ownership**: the rows that were yielded are the caller's until it asks for the next batch or closes the
    iterator; then their buffer is filled again. Copy what must live longer. A copy to a device that is still
    under way counts as use.

    `batches` is drawn from by the calling thread, `ahead` batches early; a batch has at most `batch_rows`
    rows. `threads` fill buffers at once: one is enough for a warm cache or memory, more hide a slow disk.
    `buffers`, `ahead` + 1 arrays (batch_rows, *row shape) of the reader's dtype, replace the ring's own, for
    example with pinned memory.

    Raises StorageError for buffers or batches that do not fit, and what the reader raises, at the batch that
    it concerns.
    """
    shape = (batch_rows, *reader.shape[1:])
    ring = deque(
        buffers if buffers is not None else (allocate_buffer(shape, reader.dtype) for _ in range(ahead + 1))
    )
    _check_ring(ring, ahead, shape, reader.dtype)
    under_way: deque[tuple[np.ndarray, np.ndarray, Future[np.ndarray]]] = deque()
    source = iter(batches)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        while True:
            while len(under_way) < ahead and (indices := next(source, None)) is not None:
                if len(indices) > batch_rows:
                    raise StorageError(f"a batch has {len(indices)} rows, a buffer of the ring {batch_rows}")
                buffer = ring.popleft()
                under_way.append((indices, buffer, pool.submit(reader.rows, indices, buffer[: len(indices)])))
            if not under_way:
                return
            indices, buffer, future = under_way.popleft()
            yield indices, future.result()
            ring.append(buffer)
    finally:
        pool.shutdown(cancel_futures=True)


def allocate_buffer(shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """A C-contiguous array on pages of its own, huge ones where the kernel grants them.

    A copy into 4 KiB pages takes about 1.4 times as long as one into huge pages at the size of a batch.
    """
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    memory = mmap.mmap(-1, max(count * dtype.itemsize, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype, count).reshape(shape)


def _check_ring(ring: Sequence[np.ndarray], ahead: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if ahead < 1 or len(ring) != ahead + 1:
        raise StorageError(
            f"the ring needs one buffer more than the {ahead} batches ahead, at least 2; it has {len(ring)}"
        )
    for buffer in ring:
        if buffer.shape != shape or buffer.dtype != dtype:
            raise StorageError(f"a buffer of the ring is {buffer.dtype} {buffer.shape}, not {dtype} {shape}")
