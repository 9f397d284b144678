from __future__ import annotations

import logging
import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from storage.errors import StorageError
from storage.feature_store import disk, open_features

TIERS = ("memory", "disk", "remote")


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    indices=hnp.arrays(
        st.sampled_from([np.int64, np.int32, np.uint16]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9),
        elements=st.integers(0, 599),
    )
)
def test_any_rows_in_any_order(make_store, make_rows, tier, compression, indices):
    rows = make_rows(600)
    path = make_store(rows, compression=compression)
    with open_features(path, tier) as reader:
        assert np.array_equal(reader.rows(indices), rows[indices])


def test_shape_dtype_and_index(make_store, make_rows, tier):
    with open_features(make_store(make_rows(300)), tier) as reader:
        assert (reader.shape, reader.dtype, reader.tier) == ((300, 4, 3, 2), np.float16, tier)
        assert reader.index["box_id"][7].as_py() == "box7"
        assert len(reader) == 300


def test_rows_fill_a_given_buffer(make_store, make_rows, tier):
    rows = make_rows(300)
    with open_features(make_store(rows), tier) as reader:
        buffer = np.empty((2, 2, 4, 3, 2), np.float16)
        indices = np.array([[299, 0], [3, 3]])
        assert reader.rows(indices, buffer) is buffer
        assert np.array_equal(buffer, rows[indices])
        for wrong in (buffer[:1], buffer.astype(np.float32), np.empty((2, 2, 4, 3, 4), np.float16)[..., ::2]):
            with pytest.raises(StorageError, match="out is"):
                reader.rows(indices, wrong)


@pytest.mark.parametrize("indices", [[300], [-1], [0, 10**9], [1.5], [True], ["a"]])
def test_rows_outside_the_store(make_store, make_rows, tier, indices):
    with open_features(make_store(make_rows(300)), tier) as reader, pytest.raises(IndexError, match="row"):
        reader.rows(indices)


def test_threads_share_a_reader(make_store, make_rows, tier):
    rows = make_rows(2000)
    reader = open_features(make_store(rows), tier)
    wrong: list[int] = []

    def read(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(20):
            indices = generator.integers(0, 2000, 64)
            if not np.array_equal(reader.rows(indices), rows[indices]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_auto_chooses_by_budget_and_says_why(make_store, make_rows, caplog):
    path = make_store(make_rows(300))
    size = 300 * 48
    with caplog.at_level(logging.DEBUG):
        assert open_features(path).tier == "disk"
        assert open_features(path, memory_budget=size - 1).tier == "disk"
        assert open_features(path, memory_budget=size).tier == "memory"
    assert "positioned reads" in caplog.text
    assert f"{size} bytes fit the budget of {size}" in caplog.text


def test_cold_rows_are_the_same_rows(make_store, make_rows):
    rows = make_rows(600, row_shape=(64, 16, 8))
    path = make_store(rows)
    reader = open_features(path)
    _forget_pages(path)
    indices = np.random.default_rng(0).integers(0, 600, 128)
    assert np.array_equal(reader.rows(indices), rows[indices])


@pytest.mark.parametrize("cached", [(), (0,), (255,), (0, 255), (0, 100, 255)])
def test_a_long_run_is_right_whatever_of_it_is_cached(make_store, make_rows, cached):
    """Half a shard is more than is read at once; what is cached at its ends decides how it is read."""
    rows = make_rows(600, row_shape=(128, 16, 8))
    path = make_store(rows)
    _forget_pages(path)
    with open_features(path, "disk") as reader:
        for row in cached:
            reader.rows([row])
        for wanted in (range(600), [*range(3, 250), 7, *range(300, 599)]):
            assert np.array_equal(reader.rows(wanted), rows[wanted])


def test_a_long_run_opens_its_file_once_where_none_is_kept_open(make_store, make_rows, monkeypatch):
    """Each opening starts reading ahead again."""
    rows = make_rows(600, row_shape=(64, 32, 8))
    path = make_store(rows)
    none_kept = threading.BoundedSemaphore(1)
    none_kept.acquire()
    monkeypatch.setattr(disk, "_KEPT_OPEN", none_kept)
    opened: list[str] = []
    real_open = os.open

    def noting(file: Path, flags: int) -> int:
        opened.append(str(file))
        return real_open(file, flags)

    with open_features(path, "disk") as reader:
        reader.rows([0, 300, 599])  # the shards' indexes are known
        _forget_pages(path)
        monkeypatch.setattr(disk.os, "open", noting)
        assert np.array_equal(reader.rows(np.arange(600)), rows)
    assert len(opened) == 3


def test_a_long_run_that_ends_early_is_damage(make_store, make_rows):
    path = make_store(make_rows(256, row_shape=(128, 16, 8)))
    (shard,) = (path / "features/c").glob("*/0/0/0")
    with open_features(path, "disk") as reader:
        reader.rows([0])
        os.truncate(shard, shard.stat().st_size // 2)
        with pytest.raises(StorageError, match="truncated"):
            reader.rows(range(256))


def _forget_pages(path: Path) -> None:
    for file in (path / "features/c").glob("*/0/0/0"):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_more_shards_than_descriptors(make_store, make_rows, monkeypatch):
    rows = make_rows(600)
    path = make_store(rows, rows_per_shard=8)
    kept_open = threading.BoundedSemaphore(30)
    monkeypatch.setattr(disk, "_KEPT_OPEN", kept_open)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held + 70, hard))
    try:
        with open_features(path) as one, open_features(path) as other:
            for reader in (one, other):
                assert np.array_equal(reader.rows(np.arange(600)), rows)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for _ in range(30):
        assert kept_open.acquire(blocking=False)


def test_a_forked_child_reads_with_threads_of_its_own(make_store, make_rows):
    rows = make_rows(300, row_shape=(64, 16, 8))
    reader = open_features(make_store(rows, compression="zstd"))
    reader.rows(np.arange(10))
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(reader.rows(np.arange(100)), rows[:100]) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_what_is_no_store(tmp_path: Path):
    with pytest.raises(StorageError, match="is not a feature store"):
        open_features(tmp_path)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "zarr.json").write_text("{")
    with pytest.raises(StorageError, match="is damaged"):
        open_features(tmp_path)
    (tmp_path / "features" / "zarr.json").write_text(
        '{"zarr_format": 3, "node_type": "array", "shape": [3, 4]}'
    )
    with pytest.raises(StorageError, match="damaged or incomplete"):
        open_features(tmp_path)


def test_a_store_without_index(make_store, make_rows):
    path = make_store(make_rows(300))
    (path / "index.parquet").unlink()
    reader = open_features(path)
    assert reader.rows([1]).shape == (1, 4, 3, 2)
    with pytest.raises(StorageError, match=r"no index\.parquet"):
        _ = reader.index


@pytest.mark.parametrize("damage", ["truncate", "index"])
def test_a_damaged_shard_is_named(make_store, make_rows, tier, damage):
    path = make_store(make_rows(600))
    file = path / "features/c/1/0/0/0"
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        del content[-1000:]
    else:
        content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(StorageError, match="shard 1"):
        open_features(path, tier).rows(np.arange(600))
