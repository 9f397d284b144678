from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import dask.array
import numpy as np
import pytest
import zarr

from storage.digests import digest_file
from storage.errors import StorageError
from storage.feature_store import create_features, finish_features, open_features, verify_features
from storage.feature_store import writer as writer_module
from storage.feature_store.digests import read_digests, read_file_digests
from storage.trust import Digested, stat_key


@pytest.mark.parametrize(
    ("dtype", "compression", "rows_per_shard"),
    [
        ("float16", "none", 256),
        ("float32", "zstd", 256),
        ("uint8", "none", 512),
        ("float16", "zstd", 64),
    ],
)
def test_other_clients_read_the_same_bits(make_store, make_rows, dtype, compression, rows_per_shard):
    rows = make_rows(rows_per_shard + 44, dtype)  # a whole shard, and a part of one
    path = make_store(rows, compression=compression, rows_per_shard=rows_per_shard)
    array = zarr.open(path)["features"]
    assert array.shards[0] == rows_per_shard
    assert array.chunks == (1, *rows.shape[1:])
    assert array[:].tobytes() == rows.tobytes()
    assert dask.array.from_zarr(path, component="features").compute().tobytes() == rows.tobytes()


def test_a_shard_file_is_what_zarr_itself_writes(tmp_path: Path, make_store, make_rows):
    rows = make_rows(600)
    ours = make_store(rows)
    theirs = zarr.create_group(tmp_path / "zarr").create_array(
        "features",
        shape=rows.shape,
        dtype=rows.dtype,
        chunks=(1, *rows.shape[1:]),
        shards=(256, *rows.shape[1:]),
        compressors=None,
        config={"write_empty_chunks": True},
    )
    theirs[:] = rows
    for shard in range(3):
        key = f"features/c/{shard}/0/0/0"
        assert (ours / key).read_bytes() == (tmp_path / "zarr" / key).read_bytes()


def test_rows_of_zeros_are_stored(make_store):
    path = make_store(np.zeros((256, 4, 3, 2), np.float16))
    assert (path / "features/c/0/0/0/0").stat().st_size == 256 * 48 + 256 * 16 + 4


def test_a_resumed_store_keeps_what_is_complete_and_has_the_same_digest(
    tmp_path: Path, make_store, make_rows
):
    rows = make_rows(700)
    whole = make_store(rows)
    path = tmp_path / "resumed"
    first = create_features(path, 700, rows.shape[1:], rows.dtype)
    first.write(256, rows[256:512])
    first.close()
    assert not (path / "digests.json").exists()
    kept = (path / "features/c/1/0/0/0").stat()
    with create_features(path, 700, rows.shape[1:], rows.dtype) as second:
        assert second.complete_shards == (1,)
        second.write(512, rows[512:])
        second.write(0, rows[:256])
    assert (path / "features/c/1/0/0/0").stat().st_mtime_ns == kept.st_mtime_ns
    assert read_digests(path).content == read_digests(whole).content
    assert not (path / ".partial").exists()


def test_the_content_digest_does_not_count_layout(make_store, make_rows):
    rows = make_rows(600)
    digests = {
        read_digests(
            make_store(rows, f"{per_shard}-{compression}", rows_per_shard=per_shard, compression=compression)
        ).content
        for per_shard in (32, 256, 1024)
        for compression in ("none", "zstd")
    }
    assert len(digests) == 1
    other = rows.copy()
    other[3, 0, 0, 0] += 1
    assert read_digests(make_store(other, "other")).content not in digests
    assert read_digests(make_store(rows.astype(np.float32), "wide")).content not in digests


def test_other_metadata_is_refused(make_store, make_rows, tmp_path: Path):
    rows = make_rows(300)
    path = make_store(rows, attributes={"detector": "abc"})
    with pytest.raises(StorageError, match="other metadata: its shape"):
        create_features(path, 301, rows.shape[1:], rows.dtype, attributes={"detector": "abc"})
    with pytest.raises(StorageError, match=r"attributes.*abc.*not.*xyz"):
        create_features(path, 300, rows.shape[1:], rows.dtype, attributes={"detector": "xyz"})


def test_an_existing_shard_is_never_rewritten(make_store, make_rows):
    rows = make_rows(300)
    path = make_store(rows)
    with create_features(path, 300, rows.shape[1:], rows.dtype) as writer:
        writer.write(0, rows[:256])
        with pytest.raises(StorageError, match=r"shard 0 .* exists with other rows"):
            writer.write(0, rows[:256] + 1)


def test_a_shard_on_its_way_is_never_rewritten(tmp_path: Path, make_rows):
    rows = make_rows(512)
    with create_features(tmp_path / "store", 512, rows.shape[1:], rows.dtype) as writer:
        writer.write(0, rows)
        for start in (0, 256):
            with pytest.raises(StorageError, match="exists with other rows"):
                writer.write(start, rows[start : start + 256] + 1)
    assert np.array_equal(open_features(tmp_path / "store").rows(np.arange(512)), rows)


@pytest.mark.parametrize("same", [True, False])
def test_another_writer_made_the_shard_and_finished_the_store(tmp_path: Path, make_rows, monkeypatch, same):
    rows = make_rows(256)
    slow = create_features(tmp_path / "store", 256, rows.shape[1:], rows.dtype)
    write = writer_module.write_shard

    def write_while_the_other_finishes(*arguments, **options):
        monkeypatch.setattr(writer_module, "write_shard", write)
        with create_features(tmp_path / "store", 256, rows.shape[1:], rows.dtype) as other:
            other.write(0, rows if same else rows + 1)
        return write(*arguments, **options)

    monkeypatch.setattr(writer_module, "write_shard", write_while_the_other_finishes)
    slow.write(0, rows)
    if same:
        slow.close()
        assert read_digests(tmp_path / "store").content
    else:
        with pytest.raises(StorageError, match="rebuilt with other rows"):
            slow.close()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(("start", "stop"), [(1, 257), (0, 100), (256, 600), (-256, 0), (0, 0)])
def test_only_whole_shards_are_written(tmp_path: Path, start: int, stop: int):
    with (
        create_features(tmp_path / "store", 512, (2,)) as writer,
        pytest.raises(StorageError, match="rows"),
    ):
        writer.write(start, np.zeros((stop - start, 2), np.float16))


def test_overflow_is_counted_and_refused(tmp_path: Path):
    rows = np.zeros((256, 4), np.float32)
    rows[7, 1], rows[9, 2], rows[11, 3] = 7e4, -1e5, np.nan
    writer = create_features(tmp_path / "store", 256, (4,))
    with pytest.raises(StorageError, match=r"3 values .* \(2 of them overflow .* row 7"):
        writer.write(0, rows)
    assert writer.complete_shards == ()
    rows[rows != 0] = -65504
    writer.write(0, rows)
    writer.close()
    assert open_features(tmp_path / "store").rows([7])[0, 1] == -65504


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
def test_non_finite_rows_of_the_right_dtype_are_refused(tmp_path: Path, value: float):
    for dtype in (np.float16, np.float32):
        rows = np.full((5, 3), -1, dtype)
        rows[4, 2] = value
        with pytest.raises(StorageError, match="1 values are not finite"):
            create_features(tmp_path / np.dtype(dtype).name, 5, (3,), dtype).write(0, rows)


def test_crops_are_not_rounded(tmp_path: Path):
    with pytest.raises(StorageError, match="convert them first"):
        create_features(tmp_path / "store", 5, (3,), np.uint8).write(0, np.full((5, 3), 0.5))


@pytest.mark.parametrize(
    ("shape", "options"),
    [((5, 0), {}), ((5,), {}), ((5, 3), {"dtype": "int64"}), ((5, 3), {"rows_per_shard": 96}), ((-1, 3), {})],
)
def test_what_cannot_be_stored_is_refused(tmp_path: Path, shape: tuple[int, ...], options: dict):
    with pytest.raises(StorageError, match=r"stored|rows_per_shard"):
        create_features(tmp_path / "store", shape[0], shape[1:], **options)


def test_a_store_without_rows(tmp_path: Path):
    create_features(tmp_path / "store", 0, (4, 3, 2)).close()
    assert open_features(tmp_path / "store").rows([]).shape == (0, 4, 3, 2)
    assert zarr.open(tmp_path / "store")["features"].shape == (0, 4, 3, 2)


def test_an_unfinished_store_says_what_is_missing(tmp_path: Path, make_rows: Callable[..., np.ndarray]):
    rows = make_rows(512)
    path = tmp_path / "store"
    with create_features(path, 512, rows.shape[1:]) as writer:
        writer.write(0, rows[:256])
    with pytest.raises(StorageError, match="1 of 2 shards are missing, first 1"):
        finish_features(path)
    with pytest.raises(StorageError, match=r"shard 1 \(rows 256 to 511\) is missing"):
        open_features(path).rows([300])
    assert np.array_equal(open_features(path).rows([3]), rows[[3]])


@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({}, True),
        ({"rows_per_shard": 32}, True),
        ({"rows_per_shard": 512}, False),
        ({"compression": "zstd"}, False),
    ],
)
def test_files_are_digested_as_they_are_written(make_store, make_rows, options: dict, known: bool):
    """But for shards of several digested pieces, and compressed ones: their files are read again."""
    path = make_store(make_rows(512), **options)
    files = {file.relative_to(path).as_posix(): file for file in (path / "features/c").glob("*/0/0/0")}
    digests = read_file_digests(path)
    assert set(digests) == (set(files) if known else set())
    for name, digested in digests.items():
        assert digested == Digested(digest_file(files[name]), stat_key(files[name].stat()))


def test_digests_of_another_version_are_read(make_store, make_rows):
    """Without what it knows of files, and with what it notes that is not known here."""
    path = make_store(make_rows(300))
    (path / "files.json").unlink()
    noted = json.loads((path / "digests.json").read_text())
    (path / "digests.json").write_text(json.dumps(noted | {"files": ["a digest"]}))
    assert read_file_digests(path) == {} and verify_features(path) == []


def test_a_shard_that_did_not_reach_the_disk_is_not_taken_for_whole(tmp_path: Path, make_rows, monkeypatch):
    """The kernel tells once that a page could not be written."""
    fails = [OSError(errno.EIO, "Input/output error")]
    flush = os.fsync

    def flush_once_not(descriptor: int) -> None:
        if fails:
            raise fails.pop()
        flush(descriptor)

    rows = make_rows(512)
    writer = create_features(tmp_path / "store", 512, rows.shape[1:])
    monkeypatch.setattr(os, "fsync", flush_once_not)
    writer.write(0, rows)
    with pytest.raises(OSError, match="Input/output"):
        writer.close()
    with create_features(tmp_path / "store", 512, rows.shape[1:]) as again:
        (lost,) = {0, 1} - {*again.complete_shards}
        again.write(256 * lost, rows[256 * lost : 256 * (lost + 1)])
    assert verify_features(tmp_path / "store") == []
