"""The index of manifests: it says what they say, and spares reading them."""

from __future__ import annotations

import json
import logging
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import listing, manifest_index
from storage.digests import digest_json
from storage.errors import NewerVersionError
from storage.gc import collect, find_garbage
from storage.listing import Entry, held, list_entries
from storage.local import LocalStore
from storage.manifest import Identity
from tests.storage.making import make_artifact, name_of


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index from the first artifact on, and folders that come to rest at once."""
    monkeypatch.setattr(listing, "INDEXED_FROM", 1)
    monkeypatch.setattr(manifest_index, "SETTLED_NS", -(1 << 60))


@pytest.fixture
def store(tmp_path: Path, always: None) -> LocalStore:
    """A chain of three kinds, and five more of the last."""
    store = LocalStore(tmp_path / "store")
    first = make_artifact(store, "ingest")
    second = make_artifact(store, "features", sources=(first,))
    for seed in range(6):
        make_artifact(store, "reid", seed, sources=(second,))
    return store


def by_manifests(store: LocalStore) -> list[Entry]:
    """The listing without any index."""
    index = store.root / manifest_index.FOLDER
    kept = store.root.with_name("kept")
    if index.exists():
        index.rename(kept)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(listing, "INDEXED_FROM", 1 << 60)
        found = list_entries(store)
    if kept.exists():
        kept.rename(index)
    return found


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The manifests that listings read, as they do."""
    names: list[str] = []
    original = LocalStore.read_manifests

    def noting(self: LocalStore, kind: str, keys: Any) -> Any:
        for key, raw in original(self, kind, keys):
            names.append(f"{kind}/{key}")
            yield key, raw

    monkeypatch.setattr(LocalStore, "read_manifests", noting)
    yield names


def test_an_index_spares_every_manifest_and_lists_the_same(store: LocalStore, read: list[str]) -> None:
    first = list_entries(store)
    assert len(read) == 8
    read.clear()
    again = list_entries(store)
    assert not read and again == first == by_manifests(store)
    assert [entry.lineage for entry in again] == [entry.lineage for entry in first]
    assert {entry.kind: len(entry.lineage or ()) for entry in again} == {
        "ingest": 0,
        "features": 1,
        "reid": 2,
    }


def test_while_a_folder_is_unchanged_not_even_its_names_are_listed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list_entries(store)
    monkeypatch.setattr(LocalStore, "stamps", lambda *_: pytest.fail("it was listed"))
    assert list_entries(store) == first
    assert held(store)["reid"] == (6, sum(entry.size for entry in first if entry.kind == "reid"))


def test_a_folder_that_may_change_within_a_tick_of_its_clock_is_listed_again(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    monkeypatch.setattr(manifest_index, "SETTLED_NS", 1 << 60)
    list_entries(store)
    read.clear()
    listed: list[str] = []
    original = LocalStore.stamps
    monkeypatch.setattr(LocalStore, "stamps", lambda self, kind: listed.append(kind) or original(self, kind))
    assert list_entries(store) == by_manifests(store)
    assert listed[:3] == ["features", "ingest", "reid"] and len(read) == 8, "only without the index"


def test_only_what_came_since_is_read(store: LocalStore, read: list[str]) -> None:
    list_entries(store)
    read.clear()
    new = make_artifact(store, "reid", 7)
    assert name_of(new) in {entry.name for entry in list_entries(store)}
    assert read == [name_of(new)]


def test_what_is_replaced_removed_set_aside_or_reopened_is_seen(store: LocalStore) -> None:
    entries = [entry for entry in list_entries(store) if entry.kind == "reid"]
    identity = Identity(kind="reid", version=1, recipe={"seed": 11}, inputs={})
    for content in (b"one", b"another of other size"):
        with store.making(identity, again=True) as work:
            (work.path / "data.bin").write_bytes(content)
            work.commit("11")
        assert list_entries(store) == by_manifests(store)
    store.remove("reid", entries[0].key)
    store.set_aside("reid", entries[1].key, "a test")
    store.reopen("reid", entries[2].key)
    assert list_entries(store) == by_manifests(store) and len(list_entries(store)) == 6
    collect(store, find_garbage(store, [entries[3].name]))
    assert {entry.kind for entry in list_entries(store)} == {"ingest", "features", "reid"}
    assert len(list_entries(store)) == 3 and held(store)["reid"][0] == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_index_is_rebuilt(
    store: LocalStore, seed: int, read: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    expected = list_entries(store)
    file, rng = store.root / manifest_index.FOLDER / "reid", random.Random(seed)
    raw = bytearray(file.read_bytes())
    if seed < 6:
        raw[rng.randrange(len(raw)) if seed else 70] ^= 1 << rng.randrange(8)
    else:
        del raw[rng.randrange(len(raw)) :]
    file.write_bytes(raw)
    read.clear()
    assert list_entries(store) == expected and len(read) == 6
    read.clear()
    assert list_entries(store) == expected and not read, "it was written again"


def test_the_index_of_another_store_or_kind_is_not_taken(store: LocalStore, tmp_path: Path) -> None:
    list_entries(store)
    index = store.root / manifest_index.FOLDER
    shutil.copy(index / "reid", index / "features")
    assert list_entries(store) == by_manifests(store)
    shutil.copytree(store.root, tmp_path / "copy")
    (copied,) = (tmp_path / "copy" / "ingest").iterdir()
    shutil.rmtree(copied)
    assert list_entries(LocalStore(tmp_path / "copy")) == by_manifests(LocalStore(tmp_path / "copy"))


def test_damaged_and_strange_manifests_are_told_at_every_listing(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    folder = store.root / "reid"
    keys = sorted(path.name for path in folder.iterdir())
    (folder / keys[0] / "manifest.json").write_text("{}")
    (folder / keys[1]).rename(folder / ("f" * 32))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert len(list_entries(store)) == 6
        assert caplog.text.count("its manifest is that of") == 1
    assert held(store)["reid"][0] == 4
    manifest = folder / keys[2] / "manifest.json"
    moved = folder / keys[2]
    newer = manifest.read_text().replace('"schema_version": 1', '"schema_version": 9')
    shutil.rmtree(moved)
    moved.mkdir()
    manifest.write_text(_signed(newer))
    for _ in range(2):
        with pytest.raises(NewerVersionError):
            list_entries(store)


def _signed(text: str) -> str:
    body = json.loads(text)
    del body["self_digest"]
    return json.dumps({**body, "self_digest": digest_json(body)})


def test_a_small_kind_has_no_index(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    make_artifact(store, "reid")
    assert len(list_entries(store)) == 1 and not (tmp_path / manifest_index.FOLDER).exists()


def test_a_store_that_cannot_be_written_is_listed(store: LocalStore) -> None:
    (store.root / manifest_index.FOLDER).write_text("a file where the folder would be")
    assert len(list_entries(store)) == 8


def test_processes_that_publish_and_list_at_once_agree(store: LocalStore) -> None:
    problems: list[BaseException] = []

    def publish(first: int) -> None:
        for seed in range(first, first + 8):
            make_artifact(LocalStore(store.root), "reid", seed)

    def listing_on() -> None:
        try:
            seen: set[str] = set()
            for _ in range(20):
                now = {entry.name for entry in list_entries(LocalStore(store.root))}
                assert seen <= now, "what was published stays listed"
                seen = now
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=publish, args=(first,)) for first in (100, 200)]
    threads += [threading.Thread(target=listing_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert list_entries(store) == by_manifests(store) and len(list_entries(store)) == 24
