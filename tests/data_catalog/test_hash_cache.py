"""The memory of file hashes spares reading, and is never believed when it is damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from pathlib import Path

import pytest

from data_catalog.hash_cache import HashCache


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files that changed long ago, so that their hashes are remembered."""
    folder = tmp_path / "root"
    folder.mkdir()
    past = time.time_ns() - 10**10
    for name in ("a", "b"):
        (folder / name).write_text(name)
        os.utime(folder / name, ns=(past, past))
    return folder


@pytest.mark.parametrize("damage", ["not a database", "half of it", "a page", "empty"])
def test_a_damaged_cache_is_set_aside(
    root: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache" / "hashes.sqlite"
    names = ["a", "b"]
    expected = HashCache(path).digests(root, names)
    whole = path.read_bytes()
    page = whole[:4096] + bytes(len(whole) - 4096)
    path.write_bytes(
        {"not a database": b"garbage" * 100, "half of it": whole[: len(whole) // 2], "a page": page}.get(
            damage, b""
        )
    )
    with caplog.at_level(logging.WARNING):
        assert HashCache(path).digests(root, names) == expected
    if damage != "empty":
        assert "set aside as hashes.sqlite.damaged" in caplog.text
    assert HashCache(path).digests(root, names) == expected
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM hashes").fetchone() == (2,)


@pytest.mark.parametrize("flipped", [b"\xff", b"g"])
def test_a_flipped_digest_is_not_believed(
    root: Path, tmp_path: Path, flipped: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "hashes.sqlite"
    expected = HashCache(path).digests(root, ["a"])
    old, data = expected["a"].encode(), path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, flipped + old[1:]))
    with caplog.at_level(logging.WARNING):
        assert HashCache(path).digests(root, ["a"]) == expected
    assert "hashes of files are damaged" in caplog.text


def test_a_cache_that_cannot_be_written_costs_the_memory_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert len(HashCache(tmp_path / "file" / "hashes.sqlite").digests(root, ["a", "b"])) == 2


def test_what_changed_is_hashed_again(root: Path, tmp_path: Path) -> None:
    cache = HashCache(tmp_path / "hashes.sqlite")
    before = cache.digests(root, ["a", "b"])
    (root / "a").write_text("other")
    after = cache.digests(root, ["a", "b"])
    assert after["a"] != before["a"] and after["b"] == before["b"]


def test_a_name_of_any_bytes_is_hashed(root: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (root / name).write_text("x")
    past = time.time_ns() - 10**10
    os.utime(root / name, ns=(past, past))
    assert len(HashCache(tmp_path / "hashes.sqlite").digests(root, ["a", name])) == 2
