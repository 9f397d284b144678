"""What a resume takes over: shards whose rows are those that their writer had in memory, and no others."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from storage.errors import StorageError
from storage.feature_store import create_features, finish_features, open_features, verify_features
from storage.feature_store.digests import read_digests, read_file_digests

OPTIONS = [{}, {"compression": "zstd"}, {"rows_per_shard": 32}, {"rows_per_shard": 512}]


def begin(path: Path, rows: np.ndarray, options: dict) -> Path:
    """All but the last shard is written, as by a run that was killed; returns the first shard's file."""
    size = options.get("rows_per_shard", 256)
    with create_features(path, len(rows), rows.shape[1:], rows.dtype, **options) as writer:
        writer.write(0, rows[: (len(rows) - 1) // size * size])
    return path / "features/c/0/0/0/0"


def lose_a_page(file: Path) -> None:
    """Zeros where the first rows were, with size, times and index as before."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(bytes(40))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("note", ["whole", "empty", "gone"])
def test_a_shard_that_lost_a_page_is_made_again(tmp_path: Path, make_store, make_rows, options, note: str):
    rows = make_rows(1200)
    whole = make_store(rows, "whole", **options)
    path = tmp_path / "resumed"
    lose_a_page(begin(path, rows, options))
    if note == "empty":
        (path / ".partial/digests-0.json").write_text("")
    elif note == "gone":
        (path / ".partial/digests-0.json").unlink()
    size = options.get("rows_per_shard", 256)
    with create_features(path, 1200, rows.shape[1:], rows.dtype, **options) as writer:
        done = writer.complete_shards
        assert done == tuple(range(1, (1200 - 1) // size))
        for shard in sorted({*range(-(-1200 // size))} - {*done}):
            writer.write(size * shard, rows[size * shard : size * (shard + 1)])
    assert verify_features(path) == []
    assert read_digests(path) == read_digests(whole)
    assert np.array_equal(open_features(path).rows(np.arange(1200)), rows)


def test_a_shard_that_lost_a_page_is_made_again_by_a_writer_that_does_not_ask(tmp_path: Path, make_rows):
    rows = make_rows(600)
    path = tmp_path / "store"
    lose_a_page(begin(path, rows, {}))
    with create_features(path, 600, rows.shape[1:]) as writer:
        writer.write(0, rows)
    assert verify_features(path) == []


def test_verify_compares_with_what_was_in_memory(tmp_path: Path, make_rows):
    """Though a shard was damaged before the store was finished, and by a process that took it over unseen."""
    rows = make_rows(600)
    path = tmp_path / "store"
    file = begin(path, rows, {})
    with create_features(path, 600, rows.shape[1:]) as writer:
        lose_a_page(file)
        writer.write(512, rows[512:])
    (found,) = verify_features(path)
    assert found.shard == 0
    with file.open("rb") as opened:
        noted = read_file_digests(path)["features/c/0/0/0/0"].sha256
        assert noted != hashlib.file_digest(opened, "sha256").hexdigest()


def test_small_shards_are_held_to_their_notes_when_their_blocks_are_digested(tmp_path: Path, make_rows):
    rows = make_rows(600)
    path = tmp_path / "store"
    file = begin(path, rows, {"rows_per_shard": 64})
    writer = create_features(path, 600, rows.shape[1:], rows_per_shard=64)
    lose_a_page(file)
    writer.write(576, rows[576:])
    with pytest.raises(StorageError, match="does not have the rows that were written"):
        writer.close()
    with create_features(path, 600, rows.shape[1:], rows_per_shard=64) as again:
        assert 0 not in again.complete_shards
        again.write(0, rows[:64])
    assert verify_features(path) == []


def test_shards_without_a_record_do_not_finish_a_store(tmp_path: Path, make_rows):
    rows = make_rows(600)
    path = tmp_path / "store"
    begin(path, rows, {})
    writer = create_features(path, 600, rows.shape[1:])
    (path / ".partial/digests-1.json").write_text("")
    writer.write(512, rows[512:])
    with pytest.raises(StorageError, match="1 of 3 shards are missing, first 1"):
        writer.close()
    with create_features(path, 600, rows.shape[1:]) as again:
        again.write(256, rows[256:512])
    finish_features(path)
    assert verify_features(path) == []


def test_digests_that_a_power_cut_emptied_do_not_stop_a_resume(tmp_path: Path, make_store, make_rows):
    rows = make_rows(600)
    path = make_store(rows)
    content = read_digests(path).content
    (path / "digests.json").write_text("")
    with create_features(path, 600, rows.shape[1:]) as writer:
        assert writer.complete_shards == ()
        writer.write(0, rows)
    assert read_digests(path).content == content and verify_features(path) == []


def test_what_cannot_be_cleared_away_does_not_become_a_part_of_the_store(
    tmp_path: Path, make_rows, monkeypatch: pytest.MonkeyPatch
):
    rows = make_rows(600)
    begin(tmp_path / "features", rows, {})
    unlink = os.unlink

    def failing(path, **options):
        if "digests-1" in str(path):
            raise OSError(errno.EIO, "no")
        unlink(path, **options)

    with create_features(tmp_path / "features", 600, rows.shape[1:], rows.dtype) as writer:
        writer.write(512, rows[512:])
        monkeypatch.setattr(os, "unlink", failing)
        with pytest.raises(OSError, match="no"):
            writer.close()
        monkeypatch.undo()
        finish_features(tmp_path / "features")
    assert not (tmp_path / "features/.partial").exists()
    assert verify_features(tmp_path / "features") == []
