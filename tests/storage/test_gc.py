"""Garbage collection keeps what is reached, and an interrupted one leaves nothing broken."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from storage.digests import digest_json
from storage.errors import StorageError
from storage.gc import collect, find_garbage
from storage.listing import list_entries, resolve_name, with_followers
from storage.local import LocalStore
from storage.locks import is_held
from storage.manifest import Identity
from storage.store import Artifact
from storage.tags import remove_tag, set_tag, tags
from storage.transfer import copy_artifact
from tests.storage.making import make_artifact, name_of


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def chain(store: LocalStore) -> list[Artifact]:
    """ingest -> features -> reid, and a second reid from the same features."""
    ingest = make_artifact(store, "ingest")
    features = make_artifact(store, "features", sources=(ingest,))
    return [ingest, features, *(make_artifact(store, "reid", seed, sources=(features,)) for seed in (1, 2))]


def names(store: LocalStore) -> set[str]:
    return {entry.name for entry in list_entries(store)}


def test_what_a_kept_artifact_was_made_from_stays(store: LocalStore, chain: list[Artifact]) -> None:
    ingest, features, first, second = chain
    garbage = find_garbage(store, [name_of(first)])
    assert [entry.name for entry in garbage.artifacts] == [name_of(second)]
    assert garbage.kept == 3 and garbage.size > 0
    assert names(store) == {name_of(each) for each in chain}
    collect(store, garbage)
    assert names(store) == {name_of(each) for each in (ingest, features, first)}
    assert all(store.find(each.kind, each.key) for each in (ingest, features, first))


def test_a_tag_keeps_until_it_is_taken_back(store: LocalStore, chain: list[Artifact]) -> None:
    set_tag(store, "good", name_of(chain[3]))
    assert [entry.name for entry in find_garbage(store, []).artifacts] == [name_of(chain[2])]
    remove_tag(store, "good")
    assert len(find_garbage(store, []).artifacts) == 4 and tags(store) == {}
    with pytest.raises(StorageError, match="no tag 'good'; it has: none"):
        remove_tag(store, "good")
    with pytest.raises(StorageError, match="cannot be a tag"):
        set_tag(store, "../escape", name_of(chain[0]))


def test_a_tag_that_means_nothing_stops_a_collection(store: LocalStore, chain: list[Artifact]) -> None:
    """One flipped bit in a tag's file would else delete what the tag is there to keep."""
    set_tag(store, "good", name_of(chain[3]))
    file = store.root / ".tags" / "good"
    content = file.read_bytes()
    file.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    with pytest.raises(StorageError, match=r"the tag 'good' of .*, which does not exist"):
        find_garbage(store, [])
    file.write_bytes(bytes([content[0] ^ 0x80]) + content[1:])
    with pytest.raises(StorageError, match=r"the tag 'good' of .* is damaged"):
        find_garbage(store, [])
    set_tag(store, "good", name_of(chain[3]))
    assert len(find_garbage(store, []).artifacts) == 1


def test_what_a_run_uses_meanwhile_stays_with_its_sources(store: LocalStore, chain: list[Artifact]) -> None:
    ingest, features, first, second = chain
    with store.making(Identity(kind="gallery", version=1, recipe={}, inputs={})) as work:
        (work.path / "half").write_bytes(b"1234")
        unfinished = f"gallery/{work.identity.key}"
    garbage = find_garbage(store, [])
    asked = []

    def in_use() -> frozenset[str]:
        """A run has reached `first` when the collection has begun, and then the unfinished work."""
        asked.append(store.place.holder("reid", first.key) or store.place.holder("reid", second.key))
        return frozenset([name_of(first), unfinished])

    assert collect(store, garbage, in_use) == {name_of(first), name_of(features), name_of(ingest), unfinished}
    assert names(store) == {name_of(each) for each in (ingest, features, first)}
    assert list(store.place.work_areas()) == [("gallery", unfinished.partition("/")[2])]
    assert asked[0] == os.getpid(), "it is asked under the lock of the artifact that is about to go"


def test_a_collection_that_breaks_off_frees_what_it_has_taken(
    store: LocalStore, chain: list[Artifact]
) -> None:
    asked = 0

    def in_use() -> frozenset[str]:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise OSError("the records cannot be read")
        return frozenset()

    with pytest.raises(OSError, match="records"):
        collect(store, find_garbage(store, []), in_use)
    assert len(names(store)) == 2
    assert list(store.place.removed_path.iterdir()) == []


def test_unfinished_work_goes_unless_it_is_asked_for_or_being_made(store: LocalStore) -> None:
    identity = Identity(kind="reid", version=1, recipe={}, inputs={})
    with store.making(identity) as work:
        (work.path / "half").write_bytes(b"1234")
        assert find_garbage(store, []).work_areas == ()
    assert [folder.size for folder in find_garbage(store, []).work_areas] == [4]
    assert find_garbage(store, [f"reid/{identity.key}"]).work_areas == ()
    collect(store, find_garbage(store, []))
    assert list(store.place.work_areas()) == []


def test_work_that_a_run_resumes_meanwhile_stays(store: LocalStore, chain: list[Artifact]) -> None:
    identity = Identity(kind="reid", version=1, recipe={}, inputs={})
    with store.making(identity) as work:
        (work.path / "half").write_bytes(b"1234")
    garbage = find_garbage(store, [])
    with store.making(identity) as work, store.making(chain[2].manifest.identity, again=True):
        collect(store, garbage)
        assert (work.path / "half").exists() and names(store) == {name_of(chain[2])}
    collect(store, find_garbage(store, []))
    assert list(store.place.work_areas()) == [] and names(store) == set()


def test_what_another_collection_deletes_meanwhile_is_no_error(
    store: LocalStore, chain: list[Artifact]
) -> None:
    with store.making(Identity(kind="reid", version=1, recipe={}, inputs={})) as work:
        (work.path / "half").write_bytes(b"1234")
    store.set_aside("reid", chain[3].key, "a test")
    garbage = find_garbage(store, [])
    collect(store, garbage)
    collect(store, garbage)
    assert names(store) == set() and find_garbage(store, []).size == 0


def test_what_was_replaced_goes_only_when_its_successor_is_there(
    store: LocalStore, chain: list[Artifact]
) -> None:
    left = store.root / ".replaced" / f"reid-{chain[3].key}"
    left.mkdir(parents=True)
    (left / "old").write_bytes(b"12")
    keep = [name_of(each) for each in chain]
    garbage = find_garbage(store, keep)
    with store.making(chain[3].manifest.identity, again=True):
        collect(store, garbage)
        assert left.exists()
    collect(store, garbage)
    assert not left.exists()
    store.place.path_of("reid", chain[3].key).rename(left)
    assert find_garbage(store, keep).set_aside == ()
    assert store.find("reid", chain[3].key) == chain[3]


def test_a_manifest_that_names_another_folder_is_left_out(
    store: LocalStore, chain: list[Artifact], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "precious").mkdir()
    manifest = chain[3].path / "manifest.json"
    body = json.loads(manifest.read_text())
    body["identity"]["kind"], body["key"] = "..", "precious"
    del body["self_digest"]
    manifest.write_text(json.dumps({**body, "self_digest": digest_json(body)}))
    assert names(store) == {name_of(each) for each in chain[:3]}
    assert "its manifest is that of ../precious" in caplog.text
    collect(store, find_garbage(store, []))
    with pytest.raises(StorageError, match="cannot be the kind or the key"):
        copy_artifact(store, LocalStore(tmp_path / "other"), "../precious")
    assert (tmp_path / "precious").exists()


def test_what_is_being_made_again_is_no_garbage(store: LocalStore, chain: list[Artifact]) -> None:
    with store.making(chain[2].manifest.identity, again=True):
        assert name_of(chain[2]) not in {entry.name for entry in find_garbage(store, []).artifacts}


def test_what_was_set_aside_or_half_deleted_goes(store: LocalStore, chain: list[Artifact]) -> None:
    store.set_aside("reid", chain[3].key, "a test")
    half = store.place.removed_path / "reid-x-0"
    half.mkdir(parents=True)
    (half / "rest").write_bytes(b"12")
    garbage = find_garbage(store, [name_of(chain[2])])
    assert garbage.artifacts == () and len(garbage.set_aside) == 2
    collect(store, garbage)
    assert find_garbage(store, [name_of(chain[2])]).set_aside == ()


def test_kill_9_in_the_middle_leaves_whole_artifacts_only(store: LocalStore) -> None:
    count = 1000
    many_artifacts(store, count)
    script = textwrap.dedent(f"""
        from pathlib import Path
        from storage.local import LocalStore
        from storage.gc import collect, find_garbage
        store = LocalStore(Path({str(store.root)!r}))
        garbage = find_garbage(store, [])
        print("begins", flush=True)
        collect(store, garbage)
    """)
    collector = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert collector.stdout is not None and collector.stdout.readline() == b"begins\n"
    while len(list((store.root / "features").iterdir())) > count - 100:
        time.sleep(0)
    os.kill(collector.pid, signal.SIGKILL)
    collector.wait()
    left = names(store)
    assert 0 < len(left) < count
    assert left == {f"features/{path.name}" for path in (store.root / "features").iterdir()}
    assert all(store.inspect(*name.split("/")).artifact for name in left)
    collect(store, find_garbage(store, []))
    assert names(store) == set() and find_garbage(store, []).size == 0
    assert not any(is_held(path) for path in (store.root / ".locks").rglob("*") if path.is_file())
    assert list((store.root / ".locks").glob("collecting*")) == []


def test_names_may_be_shortened_but_not_to_several(store: LocalStore, chain: list[Artifact]) -> None:
    entries = list_entries(store)
    assert resolve_name(entries, "ingest/").key == chain[0].key
    assert resolve_name(entries, chain[1].key[:10]).kind == "features"
    with pytest.raises(StorageError, match="not one artifact but 2"):
        resolve_name(entries, "reid/")
    with pytest.raises(StorageError, match="no artifact 'gallery/1'"):
        resolve_name(entries, "gallery/1")


def test_followers_are_all_that_was_made_from_it(store: LocalStore, chain: list[Artifact]) -> None:
    entries = list_entries(store)
    assert with_followers(entries, [name_of(chain[0])]) == {name_of(each) for each in chain}
    assert with_followers(entries, [name_of(chain[2])]) == {name_of(chain[2])}


def test_a_damaged_manifest_is_listed_nowhere_and_breaks_nothing(
    store: LocalStore, chain: list[Artifact]
) -> None:
    (chain[3].path / "manifest.json").write_text("{")
    assert names(store) == {name_of(each) for each in chain[:3]}


def test_much_garbage_is_found_and_all_of_it_deleted(store: LocalStore) -> None:
    """How long 10,000 artifacts take, `tests.campaigns.operations` measures."""
    kept = many_artifacts(store, 500)[0]
    garbage = find_garbage(store, [kept])
    assert len(garbage.artifacts) == 499
    collect(store, replace(garbage, artifacts=garbage.artifacts[:300]))
    assert len(list(store.keys())) == 200
    collect(store, find_garbage(store, [kept]))
    assert names(store) == {kept}


def many_artifacts(store: LocalStore, count: int) -> list[str]:
    """Their names; without the flushes of a real making, which would take minutes."""
    model = make_artifact(store, "features", count)
    for number in range(count):
        identity = Identity(kind="features", version=1, recipe={"seed": number}, inputs={})
        folder = store.place.path_of("features", identity.key)
        shutil.copytree(model.path, folder)
        manifest = model.manifest.model_copy(update={"identity": identity, "key": identity.key})
        (folder / "manifest.json").write_text(manifest.to_json())
    store.remove("features", model.key)
    return sorted(names(store))


def test_what_is_being_read_stays(store: LocalStore, chain: list[Artifact]) -> None:
    features = chain[1]
    with store.place.reading_now(features.kind, features.key) as held:
        assert held
        collect(store, find_garbage(store, []))
        assert names(store) == {name_of(features)}
    collect(store, find_garbage(store, [], despite_gaps=True))
    assert names(store) == set() and not any((store.root / ".locks").rglob("*/*"))
