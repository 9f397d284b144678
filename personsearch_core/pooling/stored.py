"""Pooled maps as rows of a store: cast and checked on their device, and brought to memory in whole blocks.

Rows of a GPU are gathered there. A whole block goes to pinned memory beside the computation, together with
the range of what was pooled, so that neither copy nor check makes the computation wait.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from personsearch_core.errors import PersonSearchError

STORED_DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, eq=False)
class PooledRows:
    """Rows (n, C, H, W) as a store has them: on the device that made them, or in this machine's memory.

    pooled: (2,) the smallest and largest value before the cast, on that device; None if they are checked.
    arrival: of rows that are still on their way to this machine's memory.
    """

    values: Tensor
    pooled: Tensor | None = None
    arrival: torch.cuda.Event | None = None

    def __getitem__(self, some: slice) -> PooledRows:
        return PooledRows(self.values[some], self.pooled)

    def here(self, where: str) -> NDArray[np.generic]:
        """In this machine's memory. Raises PersonSearchError if values are or became infinite."""
        if self.arrival is not None:
            self.arrival.synchronize()
        values = self.values.cpu()
        if self.pooled is not None:
            _require_range(self.pooled, values, where)
        rows: NDArray[np.generic] = values.numpy()
        return rows


def stored_rows(pooled: Tensor, dtype: str, where: str) -> PooledRows:
    """Pooled maps in the dtype of a store; on a GPU without waiting, to be checked when they arrive.

    Raises PersonSearchError on a CPU if values are or become infinite.
    """
    stored = pooled.to(STORED_DTYPES[dtype], memory_format=torch.contiguous_format)
    if pooled.device.type != "cpu":
        return PooledRows(stored, value_range(pooled))
    # One pass over the values that are stored, 20 times faster than `isfinite`.
    if not torch.isfinite(value_range(stored)).all():
        _require_range(value_range(pooled), stored, where)
    return PooledRows(stored)


def in_blocks(parts: Iterator[PooledRows], sizes: Sequence[int]) -> Generator[PooledRows]:
    """Rows that come in parts, as blocks of these sizes; what is left of a part begins the next block."""
    part: PooledRows | None = None
    copying: torch.cuda.Stream | None = None
    for size in sizes:
        ranges: list[Tensor] = []
        values: Tensor | None = None
        filled = 0
        while filled < size:
            if part is None or not len(part.values):
                part = next(parts)
            if values is None:
                values = part.values.new_empty((size, *part.values.shape[1:]))
            some = part[: size - filled]
            values[filled : filled + len(some.values)] = some.values
            if some.pooled is not None:
                ranges.append(some.pooled)
            part, filled = part[len(some.values) :], filled + len(some.values)
        assert values is not None
        rows = PooledRows(values, torch.stack(ranges) if ranges else None)
        if values.is_cuda:
            copying = copying or torch.cuda.Stream(values.device)
            yield _sent(rows, copying)
        else:
            yield rows


def _sent(rows: PooledRows, copying: torch.cuda.Stream) -> PooledRows:
    """Copy rows of a GPU to pinned memory on a stream of their own."""
    copying.wait_stream(torch.cuda.current_stream(rows.values.device))
    with torch.cuda.stream(copying):
        values, pooled = (None if each is None else _pinned_copy(each) for each in (rows.values, rows.pooled))
        arrival = copying.record_event()
    assert values is not None
    return PooledRows(values, pooled, arrival)


def _pinned_copy(values: Tensor) -> Tensor:
    values.record_stream(torch.cuda.current_stream(values.device))
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return pinned.copy_(values, non_blocking=True)


def value_range(values: Tensor) -> Tensor:
    """(2,) the smallest and largest value; NaN is both. Of no values, zeros."""
    return torch.stack(values.aminmax()) if values.numel() else values.new_zeros(2)


def _require_range(pooled: Tensor, stored: Tensor, where: str) -> None:
    """Raise PersonSearchError if ends of ranges (..., 2) are not finite, or not in the dtype of a store."""
    fits = torch.isfinite(pooled.to(stored.dtype))
    if fits.all():
        return
    bad = int(stored.numel() - torch.isfinite(stored).sum())
    if not torch.isfinite(pooled).all():
        raise PersonSearchError(f"{where}: {bad} pooled values are not finite: the detector is damaged")
    dtype = str(stored.dtype).removeprefix("torch.")
    raise PersonSearchError(
        f"{where}: {bad} pooled values do not fit {dtype} (largest {pooled.abs().max():g}); use dtype float32"
    )
