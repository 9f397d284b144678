"""Locks between processes; each call opens a descriptor of its own, so that one process can play two."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from storage.locks import exclusive, exclusive_now, is_held, lock_series


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


def test_the_locks_of_a_series_are_locks_as_any(tmp_path: Path) -> None:
    held, free, left = (tmp_path / "kind" / name for name in ("held", "free", "left"))
    with waiting(held), lock_series(tmp_path / "series") as series:
        left.write_text("by a killed process")
        for path, expected in ((held, False), (free, True), (left, True), (free, True)):
            with series.exclusive_now(path) as alone:
                assert alone == expected
                assert is_held(path) == os.getpid()
                with exclusive_now(path) as other:
                    assert not other
            assert path.exists() == (path == held)
    assert list(tmp_path.rglob("*")) == [tmp_path / "kind"]


def test_who_waits_for_a_lock_of_a_series_gets_it_at_its_end(tmp_path: Path) -> None:
    path, got = tmp_path / "key", threading.Event()

    def wait() -> None:
        with waiting(path):
            got.set()

    waiter = threading.Thread(target=wait)
    with lock_series(tmp_path / "series") as series, series.exclusive_now(path):
        waiter.start()
        assert not got.wait(0.1)
    waiter.join()
    assert got.is_set() and list(tmp_path.iterdir()) == []


def test_what_a_killed_series_left_is_no_lock(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from storage.locks import lock_series
folder = Path(sys.argv[1])
with lock_series(folder / "series") as series, series.exclusive_now(folder / "first"):
    pass
with lock_series(folder / "series") as series, series.exclusive_now(folder / "key"):
    os.link(folder / "key", folder / "other")
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == -9
    assert len(list(tmp_path.iterdir())) == 3
    with lock_series(tmp_path / "series") as series:
        for name in ("key", "other"):
            assert is_held(tmp_path / name) is None
            with series.exclusive_now(tmp_path / name) as alone:
                assert alone
    assert list(tmp_path.iterdir()) == []
