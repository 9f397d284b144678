from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import StorageError
from storage.feature_store import join_readers, open_features


@pytest.fixture(params=["disk", "memory"])
def tier(request):
    return request.param


@pytest.fixture
def joined(make_store, make_rows, tier):
    """The rows of three stores, and a reader of all."""
    parts = [make_rows(300), make_rows(1), make_rows(7)]
    paths = [make_store(rows, f"store{number}") for number, rows in enumerate(parts)]
    with join_readers([open_features(path, tier) for path in paths]) as reader:
        yield np.concatenate(parts), reader


def test_rows_follow_one_another(joined, tier):
    rows, reader = joined
    assert (reader.shape, reader.dtype, reader.tier, len(reader)) == (rows.shape, rows.dtype, tier, 308)
    assert np.array_equal(reader.rows(np.arange(308)), rows)

    @given(st.lists(st.integers(0, 307), max_size=20))
    def any_order(indices: list[int]) -> None:
        assert np.array_equal(reader.rows(indices), rows[indices])

    any_order()
    buffer = reader.buffer(3)
    assert reader.rows([307, 0, 300], buffer) is buffer and np.array_equal(buffer, rows[[307, 0, 300]])
    with pytest.raises(IndexError, match="row 308 is outside the store's rows 0 to 307"):
        reader.rows([308])


def test_the_index_counts_all_rows(joined):
    index = joined[1].index
    assert index["row"].to_pylist() == list(range(308))
    assert index["box_id"][299].as_py() == "box299" and index["box_id"][300].as_py() == "box0"


def test_one_store_is_read_as_it_is(make_store, make_rows):
    reader = open_features(make_store(make_rows(3)))
    assert join_readers([reader]) is reader


def test_rows_must_be_alike(make_store, make_rows):
    first = open_features(make_store(make_rows(3)))
    for number, other in enumerate([make_rows(3, "float32"), make_rows(3, row_shape=(4, 3, 3))]):
        second = open_features(make_store(other, f"other{number}"))
        with pytest.raises(StorageError, match=r"store.*cannot be read as one: build both with one detector"):
            join_readers([first, second])
    with pytest.raises(StorageError, match="at least one reader"):
        join_readers([])
