"""Batches of cached features on the training device: read ahead from a store, or held in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain, cycle
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from personsearch_core.data.prefetch import prefetch
from personsearch_core.models.compute import on_device

logger = logging.getLogger(__name__)

AHEAD = 2
"""Batches read ahead: one hides a warm read behind the step, the second a delay."""
BLOCK_ROWS = 256


class RowReader(Protocol):
    """Rows of an array by number: a feature store, or an object that behaves like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def rows(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray: ...

    def buffer(self, n_rows: int) -> np.ndarray:
        """Memory for `n_rows` rows that the reader fills fastest."""


RowBatches = Callable[[Iterable[npt.NDArray[np.int64]]], Iterator[Tensor]]
"""The rows of each array of numbers on the device, in order; a batch is valid until the next one is taken."""


def open_batches(
    reader: RowReader,
    batch_rows: int,
    device: torch.device,
    *,
    memory_budget: int,
    threads: int | None = None,
) -> RowBatches:
    """Batches of up to `batch_rows` rows; from memory if all rows fit in `memory_budget` bytes."""
    size = int(np.prod(reader.shape)) * reader.dtype.itemsize
    fit = size <= memory_budget
    logger.debug(
        "features (%.2f GiB) are %s: the memory budget is %.2f GiB (%s)",
        size / 2**30,
        "held in memory" if fit else "read as needed",
        memory_budget / 2**30,
        device,
    )
    if fit:
        return RowsInMemory(reader, device)
    return RowsReadAhead(reader, batch_rows, device, threads)


class RowsInMemory:
    """All rows as one tensor on the device, filled block by block to save memory."""

    def __init__(self, reader: RowReader, device: torch.device) -> None:
        self._rows = torch.empty(reader.shape, dtype=_torch_dtype(reader), device=device)
        for start in range(0, reader.shape[0], BLOCK_ROWS):
            block = self._rows[start : start + BLOCK_ROWS]
            numbers = np.arange(start, start + len(block))
            if device.type == "cpu":
                reader.rows(numbers, out=block.numpy())
            else:
                block.copy_(torch.from_numpy(reader.rows(numbers)))

    def __call__(self, indices: Iterable[npt.NDArray[np.int64]]) -> Iterator[Tensor]:
        for batch in indices:
            yield self._rows[on_device(torch.from_numpy(batch), self._rows.device)]


class RowsReadAhead:
    """Rows read by threads into a ring of reused buffers, pinned if a GPU copies from them."""

    def __init__(
        self, reader: RowReader, batch_rows: int, device: torch.device, threads: int | None = None
    ) -> None:
        self._reader = reader
        self._batch_rows = batch_rows
        self._device = device
        # On a GPU's machine, reading has the CPU to itself: all that is read ahead is read at once.
        self._threads = threads or (AHEAD if device.type == "cuda" else 1)
        self._copying: torch.cuda.Stream | None = None

    def __call__(self, indices: Iterable[npt.NDArray[np.int64]]) -> Iterator[Tensor]:
        read = prefetch(
            self._read, zip(indices, cycle(self._ring()), strict=False), threads=self._threads, ahead=AHEAD
        )
        with closing(read):
            yield from read if self._device.type != "cuda" else self._copied(read)

    def _copied(self, read: Iterable[Tensor]) -> Iterator[Tensor]:
        """Copy each batch to the GPU while the previous one is in use."""
        in_use = torch.cuda.current_stream(self._device)
        if self._copying is None:  # one for all calls: a stream keeps its memory
            self._copying = torch.cuda.Stream(self._device)
        copying = self._copying
        before: tuple[Tensor, torch.cuda.Event] | None = None
        for buffer in chain(read, [None]):
            coming = None
            if buffer is not None:
                copying.wait_stream(in_use)  # or copies would pile up before a busy GPU
                with torch.cuda.stream(copying):
                    coming = buffer.to(self._device, non_blocking=True), copying.record_event()
            if before is not None:
                batch, copied = before
                in_use.wait_event(copied)
                batch.record_stream(in_use)
                yield batch
                copied.synchronize()  # its buffer is filled next
            before = coming

    def _ring(self) -> list[Tensor]:
        """One buffer per batch read ahead, one for the batch in use and, for a GPU, one being copied."""
        if self._device.type != "cuda":
            return [torch.from_numpy(self._reader.buffer(self._batch_rows)) for _ in range(AHEAD + 1)]
        shape = (self._batch_rows, *self._reader.shape[1:])
        return [
            torch.empty(shape, dtype=_torch_dtype(self._reader), pin_memory=True) for _ in range(AHEAD + 2)
        ]

    def _read(self, item: tuple[npt.NDArray[np.int64], Tensor]) -> Tensor:
        batch, buffer = item
        used = buffer[: len(batch)]
        self._reader.rows(batch, out=used.numpy())
        return used


def _torch_dtype(reader: RowReader) -> torch.dtype:
    return torch.from_numpy(np.empty(0, reader.dtype)).dtype
