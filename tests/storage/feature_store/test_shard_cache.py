"""Shards of a remote store that stay on this machine: the same rows, within a size, without damage."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.range_server import serve
from storage.digests import digest_file
from storage.feature_store import FeatureReader, RowCodec, ShardCache, open_features
from storage.folders import files_under
from storage.manifest import FileEntry

N_ROWS, SHARD = 640, 64
EVERY = np.arange(N_ROWS)

Make = Callable[..., np.ndarray]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with serve(tmp_path, 0) as served:
        yield f"{served}/store"


def cache_of(folder: Path, store: Path, limit: int = 1 << 30) -> ShardCache:
    files = {
        file.relative_to(store).as_posix(): FileEntry(size=file.stat().st_size, sha256=digest_file(file))
        for file in files_under(store)
    }
    return ShardCache(folder, limit, files)


def kept(cache: ShardCache) -> set[str]:
    return {file.name for file in cache.folder.iterdir() if not file.name.startswith(".")}


def shards_of(cache: ShardCache) -> set[str]:
    return {entry.sha256 for name, entry in cache.files.items() if name.startswith("features/c/")}


def wait_for(cache: ShardCache, number: int) -> None:
    deadline = time.monotonic() + 20
    while len(kept(cache)) < number and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(kept(cache)) == number


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zstd"}, {"codec": RowCodec((4, 3, 2), np.dtype(np.float16), "int8")}]
)
def test_rows_are_the_same_before_and_after_their_shards_arrive(
    tmp_path: Path, url: str, make_store: Callable[..., Path], make_rows: Make, options: dict[str, object]
) -> None:
    store = make_store(make_rows(N_ROWS), rows_per_shard=SHARD, **options)
    cache = cache_of(tmp_path / "cache", store)
    with open_features(store) as plain:
        wanted = plain.rows(EVERY)
    asked = np.random.default_rng(0).integers(0, N_ROWS, (20, 50))
    with open_features(url, shard_cache=cache) as reader:
        assert reader.tier == "remote" and reader.index.num_rows == N_ROWS
        for batch in asked:
            np.testing.assert_array_equal(reader.rows(batch), wanted[batch])
        wait_for(cache, N_ROWS // SHARD)
        np.testing.assert_array_equal(reader.rows(EVERY), wanted)
    assert kept(cache) == shards_of(cache)
    assert all(digest_file(cache.folder / name) == name for name in kept(cache))


def without_server(tmp_path: Path, url: str, cache: ShardCache) -> FeatureReader:
    """A reader whose shards are not on the server any more, so that only the cache has them."""
    reader = open_features(url, shard_cache=cache)
    (tmp_path / "store" / "features" / "c").rename(tmp_path / "gone")
    return reader


def test_what_is_kept_is_read_without_a_request(
    tmp_path: Path, url: str, make_store: Callable[..., Path], make_rows: Make
) -> None:
    rows = make_rows(N_ROWS)
    cache = cache_of(tmp_path / "cache", make_store(rows, rows_per_shard=SHARD))
    with open_features(url, shard_cache=cache) as reader:
        reader.rows(EVERY)
        wait_for(cache, N_ROWS // SHARD)
    with without_server(tmp_path, url, cache) as reader:
        np.testing.assert_array_equal(reader.rows(EVERY), rows)


def test_the_size_is_bounded_and_what_was_used_longest_ago_goes_first(
    tmp_path: Path, url: str, make_store: Callable[..., Path], make_rows: Make
) -> None:
    rows = make_rows(N_ROWS)
    store = make_store(rows, rows_per_shard=SHARD)
    size = next(file for file in files_under(store / "features" / "c")).stat().st_size
    cache = cache_of(tmp_path / "cache", store, limit=4 * size + size // 2)
    with open_features(url, shard_cache=cache) as reader:
        for _ in range(3):
            np.testing.assert_array_equal(reader.rows(EVERY), rows)
            time.sleep(0.2)
        wait_for(cache, 4)
    first = kept(cache)
    oldest = sorted(first)[:2]
    for name in first:
        moment = time.time() - (200 if name in oldest else 100)
        os.utime(cache.folder / name, (moment, moment))
    shard_of = {entry.sha256: name for name, entry in cache.files.items()}
    missing = sorted(int(shard_of[name].split("/")[2]) for name in shards_of(cache) - first)[:2]
    with open_features(url, shard_cache=cache) as reader:
        wanted = np.array([shard * SHARD for shard in missing])
        deadline = time.monotonic() + 20
        while not set(oldest).isdisjoint(kept(cache)) and time.monotonic() < deadline:
            np.testing.assert_array_equal(reader.rows(wanted), rows[wanted])
            time.sleep(0.02)
        assert len(kept(cache)) <= 4 and kept(cache) & first == first - set(oldest)
        np.testing.assert_array_equal(reader.rows(EVERY), rows)


def test_a_shard_that_two_processes_bring_counts_once(
    tmp_path: Path, make_store: Callable[..., Path], make_rows: Make
) -> None:
    """Each process of a training has a reader of its own over the same cache."""
    store = make_store(make_rows(SHARD), rows_per_shard=SHARD)
    (shard,) = files_under(store / "features" / "c")
    cache = cache_of(tmp_path / "cache", store, limit=shard.stat().st_size)
    cache.folder.mkdir()
    (entry,) = (each for each in cache.files.values() if each.sha256 in shards_of(cache))
    opened = time.time() - 60
    for number in range(2):
        arrived = cache.folder / f".{number}.partial"
        arrived.write_bytes(shard.read_bytes())
        assert cache.admit(entry, arrived, opened)
    cache.path(entry).write_bytes(b"cut off")
    arrived.write_bytes(shard.read_bytes())
    assert cache.admit(entry, arrived, opened) and digest_file(cache.path(entry)) == entry.sha256


def test_damage_does_not_enter_the_cache(
    tmp_path: Path,
    url: str,
    make_store: Callable[..., Path],
    make_rows: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = make_rows(N_ROWS)
    store = make_store(rows, rows_per_shard=SHARD)
    cache = cache_of(tmp_path / "cache", store)
    damaged = store / "features" / "c" / "3" / "0" / "0" / "0"
    content = bytearray(damaged.read_bytes())
    content[5] ^= 255
    damaged.write_bytes(content)
    with open_features(url, shard_cache=cache) as reader:
        reader.rows(EVERY)
        wait_for(cache, N_ROWS // SHARD - 1)
    assert "does not match its digest" in caplog.text
    assert not [file for file in cache.folder.iterdir() if file.suffix == ".partial"]


def test_a_shard_that_another_process_removes_is_read_from_the_server(
    tmp_path: Path,
    url: str,
    make_store: Callable[..., Path],
    make_rows: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where files cannot stay open."""
    monkeypatch.setattr("storage.feature_store.disk._KEPT_OPEN.acquire", lambda blocking: False)
    rows = make_rows(N_ROWS)
    cache = cache_of(tmp_path / "cache", make_store(rows, rows_per_shard=SHARD))
    with open_features(url, shard_cache=cache) as reader:
        reader.rows(EVERY)
        wait_for(cache, N_ROWS // SHARD)
        np.testing.assert_array_equal(reader.rows(EVERY), rows)
        for name in kept(cache):
            (cache.folder / name).unlink()
        np.testing.assert_array_equal(reader.rows(EVERY), rows)
