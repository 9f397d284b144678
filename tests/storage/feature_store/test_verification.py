from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import StorageError
from storage.feature_store import (
    create_features,
    open_features,
    remove_shards,
    summarise_features,
    verify_features,
    write_index,
)
from storage.feature_store.digests import read_digests
from storage.local import LocalStore
from storage.manifest import Identity
from tests.storage.feature_store.conftest import make_index


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
    remove_shards(path, [found.shard])
    with create_features(path, 700, rows.shape[1:], compression=compression) as writer:
        writer.write(256, rows[256:512])
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
    writer = create_features(path, 700, rows.shape[1:])
    assert writer.complete_shards == (0, 2)
    writer.write(256, rows[:256])
    with pytest.raises(StorageError, match="was rebuilt with other rows"):
        writer.close()
    with create_features(path, 700, rows.shape[1:]) as writer:
        assert writer.complete_shards == (0, 2)
        writer.write(256, rows[256:512])
    assert verify_features(path) == []


def test_a_damaged_index_is_named(make_store, make_rows):
    path = make_store(make_rows(700))
    index = path / "index.parquet"
    whole = index.read_bytes()
    people = pq.read_metadata(index).row_group(0).column(make_index(0).column_names.index("person_id"))
    flipped = bytearray(whole)
    flipped[people.data_page_offset + people.total_compressed_size // 4] ^= 4
    for damaged in (whole[:-1], b"", flipped):
        index.write_bytes(damaged)
        for read in (verify_features, summarise_features):
            with pytest.raises(StorageError, match=r"index\.parquet is damaged"):
                read(path)
        with pytest.raises(StorageError, match=r"index\.parquet is damaged"):
            _ = open_features(path).index
    index.unlink()
    assert verify_features(path) == []
    write_index(path, pa.table({"row": range(699)}))
    with pytest.raises(StorageError, match="it has 699 rows, not the 700 of the array"):
        verify_features(path)


def test_the_index_of_an_artifact_is_held_to_its_manifest(make_rows, tmp_path: Path):
    rows = make_rows(10)
    with LocalStore(tmp_path).making(Identity(kind="features", version=1, recipe={}, inputs={})) as work:
        with create_features(work.path, 10, rows.shape[1:]) as writer:
            writer.write(0, rows)
        write_index(work.path, make_index(10))
        made = work.commit("content")
    assert verify_features(made.path) == []
    index = make_index(10)
    names = pa.array(["another"] * 10)
    write_index(made.path, index.set_column(index.column_names.index("person_id"), "person_id", names))
    with pytest.raises(StorageError, match="its digest is not the one in the artifact's manifest"):
        verify_features(made.path)


def test_what_cannot_be_verified(make_store, make_rows, tmp_path: Path):
    with pytest.raises(StorageError, match="is not a feature store"):
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
