"""Locks between processes; each call opens a descriptor of its own, so that one process can play two."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from storage.locks import exclusive, exclusive_now, is_held, shared_now


def waiting(path: Path) -> AbstractContextManager[object]:
    return exclusive(path, what="a test")


@pytest.mark.parametrize("lock", [waiting, exclusive_now])
def test_a_lock_whose_file_was_deleted_leaves_its_successors_alone(tmp_path: Path, lock: object) -> None:
    """Somebody deletes the whole store while it is used, and another process begins a new one there."""
    assert callable(lock)
    path = tmp_path / "locks" / "key"
    with lock(path):
        path.unlink()
        successor = waiting(path)
        successor.__enter__()
    assert path.exists() and is_held(path) is not None
    with exclusive_now(path) as alone:
        assert not alone
    successor.__exit__(None, None, None)
    assert not path.exists()


def test_readers_share_a_lock_and_keep_writers_out(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "key"
    with shared_now(path) as first:
        with shared_now(path) as second:
            assert first and second and is_held(path) is None
        assert path.exists()  # the other still reads
        with exclusive_now(path) as alone:
            assert not alone
    assert not path.exists()
    with exclusive_now(path), shared_now(path) as late:
        assert not late
