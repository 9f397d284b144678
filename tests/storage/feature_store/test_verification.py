from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from storage.errors import StorageError
from storage.feature_store import (
    create_features,
    open_features,
    read_digests,
    remake_shards,
    remove_shards,
    verify_features,
)


def damage(path: Path, kind: str) -> None:
    """Damage shard 1 of the store."""
    file = path / "features/c/1/0/0/0"
    content = bytearray(file.read_bytes())
    if kind == "missing":
        file.unlink()
        return
    if kind == "truncated":
        del content[5000:]
    elif kind == "empty":
        content.clear()
    else:
        content[{"first byte": 0, "a row": 3333, "index": -50, "crc": -1}[kind]] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("kind", ["truncated", "empty", "missing", "first byte", "a row", "index", "crc"])
def test_verify_names_the_damaged_shard_and_only_that_is_made_again(make_store, make_rows, kind, compression):
    rows = make_rows(700)
    path = make_store(rows, compression=compression)
    digest = read_digests(path).content
    others = {shard: (path / f"features/c/{shard}/0/0/0").stat().st_mtime_ns for shard in (0, 2)}
    assert verify_features(path) == []
    damage(path, kind)
    (found,) = verify_features(path)
    assert (found.shard, found.rows) == (1, range(256, 512))
    assert "shard 1" in found.reason or "row" in found.reason
    remake_shards(path, [found.shard], lambda wanted: rows[wanted.start : wanted.stop])
    assert verify_features(path) == []
    assert read_digests(path).content == digest
    assert np.array_equal(open_features(path).rows(np.arange(700)), rows)
    assert others == {shard: (path / f"features/c/{shard}/0/0/0").stat().st_mtime_ns for shard in (0, 2)}


@pytest.mark.parametrize("rows_per_shard", [64, 512])
def test_shards_that_are_no_blocks(make_store, make_rows, rows_per_shard):
    rows = make_rows(1100)
    path = make_store(rows, rows_per_shard=rows_per_shard)
    damage(path, "a row" if rows_per_shard == 512 else "first byte")
    seen = []
    (found,) = verify_features(path, threads=1, progress=lambda done, total: seen.append((done, total)))
    assert found.rows == range(rows_per_shard, 2 * rows_per_shard)
    assert seen[-1] == (-(-1100 // rows_per_shard),) * 2


def test_a_shard_made_again_by_resuming(make_store, make_rows):
    rows = make_rows(700)
    path = make_store(rows)
    remove_shards(path, [1])
    with create_features(path, 700, rows.shape[1:]) as writer:
        assert writer.complete_shards == (0, 2)
        with pytest.raises(StorageError, match="was made again with other rows"):
            writer.write(256, rows[:256])
        assert writer.complete_shards == (0, 2)
        writer.write(256, rows[256:512])
    assert verify_features(path) == []


def test_what_cannot_be_verified(make_store, make_rows, tmp_path: Path):
    with pytest.raises(StorageError, match="is no feature store"):
        verify_features(tmp_path)
    path = make_store(make_rows(300))
    digests = path / "digests.json"
    text = digests.read_text()
    digests.write_text(text.replace(read_digests(path).pieces[0], "0" * 64))
    with pytest.raises(StorageError, match="do not make its content digest"):
        verify_features(path)
    digests.write_text("{}")
    with pytest.raises(StorageError, match="is damaged"):
        verify_features(path)
    digests.unlink()
    with pytest.raises(StorageError, match="is unfinished"):
        verify_features(path)
