from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from storage.errors import StorageError
from storage.feature_store import create_features, open_features, write_index
from storage.feature_store.statistics import feature_statistics


@pytest.fixture
def rows(make_rows) -> np.ndarray:
    """300 rows with a dead channel, and zeros in another."""
    rows = make_rows(300)
    rows[:, 1] = 0
    rows[:, 2][rows[:, 2] < 0] = 0
    return rows


def test_statistics_are_those_of_the_whole_array(make_store, rows):
    found = feature_statistics(make_store(rows))
    wide = rows.astype(np.float64)
    assert found.n_rows == 300
    assert np.allclose(found.channel_mean, wide.mean(axis=(0, 2, 3)))
    assert np.allclose(found.channel_std, wide.std(axis=(0, 2, 3)))
    assert np.allclose(found.channel_zeros, (rows == 0).mean(axis=(0, 2, 3)))
    assert found.sparsity == pytest.approx((rows == 0).mean())
    assert found.dead_channels == (1,)


def test_distances_are_those_of_all_pairs(make_store, rows):
    path = make_store(rows)
    found = feature_statistics(path)
    people = open_features(path).index["person_id"].to_pylist()
    points = rows.astype(np.float64).mean(axis=(2, 3))
    within, between = [], []
    for i, j in itertools.combinations(range(300), 2):
        if people[i] is not None and people[j] is not None:
            (within if people[i] == people[j] else between).append(((points[i] - points[j]) ** 2).sum())
    assert found.n_identities == len({person for person in people if person})
    assert found.within_identity == pytest.approx(np.mean(within))
    assert found.between_identity == pytest.approx(np.mean(between))
    assert found.distance_ratio == pytest.approx(np.mean(within) / np.mean(between))


def test_schedulers_and_blocks_do_not_change_them(make_store, make_rows, monkeypatch):
    path = make_store(make_rows(1000))
    whole = feature_statistics(path)
    monkeypatch.setattr("storage.feature_store.statistics._BLOCK_BYTES", 1000)
    blocks = feature_statistics(path, scheduler="synchronous")
    assert np.allclose(whole.channel_mean, blocks.channel_mean)
    assert whole.distance_ratio == pytest.approx(blocks.distance_ratio)


def test_identities_of_two_datasets_are_apart(make_store, make_rows):
    path = make_store(make_rows(100))
    index = open_features(path).index
    n_before = feature_statistics(path).n_identities
    datasets = ["a" if row % 2 else "b" for row in range(100)]
    write_index(path, index.set_column(index.schema.get_field_index("dataset"), "dataset", [datasets]))
    assert feature_statistics(path).n_identities == 2 * n_before


def test_without_pairs_there_is_no_distance(make_store, make_rows):
    path = make_store(make_rows(100))
    index = open_features(path).index
    unknown = [None] * 100
    write_index(path, index.set_column(index.schema.get_field_index("person_id"), "person_id", [unknown]))
    found = feature_statistics(path)
    assert (found.n_identities, found.within_identity, found.distance_ratio) == (0, None, None)


def test_nothing_to_compute(tmp_path: Path):
    create_features(tmp_path / "store", 0, (2, 2, 2)).close()
    with pytest.raises(StorageError, match=r"no index\.parquet"):
        feature_statistics(tmp_path / "store")
