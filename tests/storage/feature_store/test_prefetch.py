from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from storage.errors import StorageError
from storage.feature_store import allocate_buffer, open_features, prefetch_rows


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("tier", ["memory", "disk"])
def test_batches_come_in_order_from_few_buffers(make_store, make_rows, tier, threads):
    rows = make_rows(600)
    reader = open_features(make_store(rows), tier)
    generator = np.random.default_rng(0)
    batches = [generator.integers(0, 600, size) for size in [32] * 20 + [7]]
    buffers = set()
    seen = 0
    for expected, (indices, block) in zip(
        batches, prefetch_rows(reader, iter(batches), batch_rows=32, ahead=3, threads=threads), strict=True
    ):
        assert indices is expected
        assert np.array_equal(block, rows[expected])
        buffers.add(block.ctypes.data)
        seen += 1
    assert seen == 21
    assert len(buffers) == 4


def test_a_yielded_block_is_the_callers_until_the_next(make_store, make_rows):
    rows = make_rows(600)
    reader = open_features(make_store(rows))
    batches = (np.full(8, row) for row in range(100))
    for indices, block in prefetch_rows(reader, batches, batch_rows=8, ahead=2, threads=2):
        block += 0  # the others may be filled while this one is used
        assert np.array_equal(block, rows[indices])


def test_only_so_many_batches_are_drawn_ahead(make_store, make_rows):
    drawn = []

    def batches() -> Iterator[np.ndarray]:
        for number in range(50):
            drawn.append(number)
            yield np.array([number])

    reader = open_features(make_store(make_rows(600)))
    ahead = prefetch_rows(reader, batches(), batch_rows=1, ahead=3)
    for number in range(10):
        next(ahead)
        assert len(drawn) == number + 3
    ahead.close()


def test_own_buffers_are_used(make_store, make_rows):
    reader = open_features(make_store(make_rows(600)))
    own = [allocate_buffer((16, 4, 3, 2), np.float16) for _ in range(3)]
    places = {buffer.ctypes.data for buffer in own}
    blocks = prefetch_rows(reader, (np.arange(16) for _ in range(9)), batch_rows=16, buffers=own)
    assert {block.ctypes.data for _, block in blocks} == places


def test_errors_come_with_the_batch_that_they_concern(make_store, make_rows):
    reader = open_features(make_store(make_rows(600)))
    blocks = prefetch_rows(reader, iter([np.array([1]), np.array([600])]), batch_rows=1)
    next(blocks)
    with pytest.raises(IndexError, match="row 600"):
        next(blocks)


def test_what_does_not_fit_the_ring(make_store, make_rows):
    reader = open_features(make_store(make_rows(600)))
    with pytest.raises(StorageError, match="a batch has 5 rows"):
        next(prefetch_rows(reader, iter([np.arange(5)]), batch_rows=4))
    with pytest.raises(StorageError, match="one buffer more"):
        next(prefetch_rows(reader, iter([]), batch_rows=4, buffers=[np.empty((4, 4, 3, 2), np.float16)] * 2))
    with pytest.raises(StorageError, match="a buffer of the ring is float32"):
        next(prefetch_rows(reader, iter([]), batch_rows=4, buffers=[np.empty((4, 4, 3, 2), np.float32)] * 3))
