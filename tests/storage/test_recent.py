"""The memory of the newest artifacts of a kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage import recent
from storage.local import LocalStore
from tests.storage.making import make_artifact


def test_the_newest_come_first_and_the_oldest_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "REMEMBERED", 3)
    store = LocalStore(tmp_path)
    keys = [make_artifact(store, "reid", seed).key for seed in range(5)]
    assert store.newest("reid") == keys[:1:-1]
    assert store.newest("features") == []


def test_a_store_that_remembers_nothing_gives_what_it_has(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    keys = {make_artifact(store, "reid", seed).key for seed in range(3)}
    (tmp_path / ".recent" / "reid").unlink()
    assert set(store.newest("reid")) == keys
    another = make_artifact(store, "reid", 3).key
    assert store.newest("reid")[0] == another and set(store.newest("reid")) == {another, *keys}


def test_a_damaged_memory_is_no_error(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    key = make_artifact(store, "reid").key
    with (tmp_path / ".recent" / "reid").open("ab") as memory:
        memory.write(b"\xff\x00../../etc\n")
    assert store.newest("reid") == [key]
