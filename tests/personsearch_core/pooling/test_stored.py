"""Rows on their way from a device: cut into whole blocks, and refused where a store cannot hold them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from personsearch_core.data.prefetch import in_thread
from personsearch_core.errors import PersonSearchError
from personsearch_core.pooling.stored import PooledRows, in_blocks, value_range


@given(st.lists(st.integers(0, 7), max_size=12), st.data())
def test_blocks_are_the_parts_in_order(parts: list[int], data: st.DataObject) -> None:
    rows = torch.arange(2.0 * sum(parts)).reshape(-1, 2, 1, 1)
    sizes, left = [], len(rows)
    while left:
        sizes.append(data.draw(st.integers(1, left)))
        left -= sizes[-1]
    blocks = in_blocks((PooledRows(part) for part in rows.split(parts)) if parts else iter(()), sizes)
    found = [block.here("rows") for block in in_thread(blocks, ahead=1)]
    assert [len(block) for block in found] == sizes
    assert np.array_equal(np.concatenate([np.empty((0, 2, 1, 1)), *found]), rows.numpy())


@pytest.mark.parametrize(
    ("bad", "refusal"),
    [
        (7e4, "block 1: 1 pooled values do not fit float16"),
        (np.nan, "block 1: 1 pooled values are not finite"),
    ],
)
def test_rows_that_were_not_checked_are_refused_when_they_arrive(bad: float, refusal: str) -> None:
    """As a GPU's are: what was pooled leaves its range behind, and is checked in this machine's memory."""

    def parts() -> Iterator[PooledRows]:
        for number in range(4):
            pooled = torch.full((3, 2), float(number))
            pooled[1, 1] = bad if number == 3 else 65504.0
            yield PooledRows(pooled.half(), value_range(pooled))

    first, second = in_blocks(parts(), [6, 6])
    assert first.here("block 0").max() == 65504.0
    with pytest.raises(PersonSearchError, match=refusal):
        second.here("block 1")
