"""Batches from memory and batches read ahead are the same, in order; errors come where they belong."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from personsearch_core.training.row_batches import AHEAD, RowsInMemory, RowsReadAhead, open_batches
from tests.personsearch_core.training.synthetic_rows import ArrayRows

CPU = torch.device("cpu")


def store(rows: int = 600, dtype: str = "float16") -> ArrayRows:
    return ArrayRows(np.arange(rows * 6).reshape(rows, 3, 2, 1).astype(dtype))


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
@pytest.mark.parametrize("threads", [1, 4])
def test_both_tiers_give_the_rows(dtype: str, threads: int) -> None:
    reader = store(dtype=dtype)
    generator = np.random.default_rng(0)
    indices = [generator.integers(0, 600, size) for size in (32, 32, 7, 32, 1)]
    for tier in (RowsInMemory(reader, CPU), RowsReadAhead(reader, 32, CPU, threads)):
        found = [batch.clone().numpy() for batch in tier(indices)]
        assert all((rows == reader.array[i]).all() for rows, i in zip(found, indices, strict=True))
        assert found[0].dtype == reader.dtype


def test_rows_in_memory_are_never_there_twice() -> None:
    outs: list[np.ndarray | None] = []

    class Watched(ArrayRows):
        def rows(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
            outs.append(out)
            return super().rows(indices, out)

    tier = RowsInMemory(Watched(store().array), CPU)
    held = tier._rows.numpy()
    assert len(outs) == 3 and all(out is not None and np.shares_memory(out, held) for out in outs)


def test_tier_is_chosen_by_size() -> None:
    reader = store()
    size = reader.array.nbytes
    assert isinstance(open_batches(reader, 32, CPU, memory_budget=size), RowsInMemory)
    assert isinstance(open_batches(reader, 32, CPU, memory_budget=size - 1), RowsReadAhead)


def test_rows_in_use_are_not_overwritten() -> None:
    """While a batch is held, others are read ahead, and none of them into its buffer."""
    reader = store()
    batches = RowsReadAhead(reader, 8, CPU, threads=2)(np.arange(8) + 8 * n for n in range(20))
    for number, batch in enumerate(batches):
        expected = reader.array[8 * number : 8 * number + 8]
        for _ in range(50):
            assert (batch.numpy() == expected).all()


def test_error_comes_at_its_batch_and_threads_end() -> None:
    class Torn(ArrayRows):
        def rows(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
            if 24 in indices:
                raise OSError("row 24 cannot be read")
            return super().rows(indices, out)

    before = threading.active_count()
    batches = RowsReadAhead(Torn(store().array), 8, CPU)(np.arange(8) + 8 * n for n in range(20))
    assert [next(batches)[0, 0, 0, 0].item() for _ in range(3)] == [0, 48, 96]
    with pytest.raises(OSError, match="row 24"):
        next(batches)
    assert threading.active_count() <= before
    assert AHEAD >= 1
