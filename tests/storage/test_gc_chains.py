"""A collection never deletes what a tagged artifact was made from, whatever became of a link in between."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from storage import durable
from storage import tags as tags_module
from storage.errors import NewerVersionError, StorageError
from storage.gc import collect, find_garbage
from storage.lineage import RECORD
from storage.listing import list_entries
from storage.local import LocalStore
from storage.manifest import FILE_NAME, Identity
from storage.store import Artifact
from storage.tags import remove_tag, set_tag, tags
from tests.storage.making import make_artifact, name_of

KINDS = ("ingest", "detector", "features", "reid", "evaluation")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def make_chain(store: LocalStore) -> list[Artifact]:
    """Each made from the one before; the last is tagged. One more stands apart, which is garbage."""
    made: list[Artifact] = []
    for kind in KINDS:
        made.append(make_artifact(store, kind, sources=tuple(made[-1:])))
    make_artifact(store, "apart")
    set_tag(store, "release", name_of(made[-1]))
    return made


def forget_lineages(store: LocalStore) -> None:
    """As if an earlier version had made everything."""
    for kind, key in list(store.keys()):
        manifest = store.manifest_of(kind, key)
        made_by = {name: value for name, value in manifest.made_by.items() if name != RECORD}
        old = manifest.model_copy(update={"made_by": made_by})
        (store.place.path_of(kind, key) / FILE_NAME).write_text(old.to_json())


def flip_a_bit(store: LocalStore, link: Artifact) -> None:
    file = link.path / FILE_NAME
    content = bytearray(file.read_bytes())
    at = content.index(link.manifest.sources["0"].encode()) + len(link.manifest.sources["0"]) - 1
    content[at] = ord("0") if content[at] != ord("0") else ord("1")
    file.write_bytes(content)


def lose_the_manifest(store: LocalStore, link: Artifact) -> None:
    (link.path / FILE_NAME).unlink()


def empty_the_manifest(store: LocalStore, link: Artifact) -> None:
    (link.path / FILE_NAME).write_text("")


def invalidate(store: LocalStore, link: Artifact) -> None:
    store.remove(link.kind, link.key)


def set_aside(store: LocalStore, link: Artifact) -> None:
    store.set_aside(link.kind, link.key, "a test")


def put_out_of_sight(store: LocalStore, link: Artifact) -> None:
    """Between the two renames of its replacement."""
    (store.root / ".replaced").mkdir()
    link.path.rename(store.root / ".replaced" / f"{link.kind}-{link.key}")


def swap_with_another(store: LocalStore, link: Artifact) -> None:
    """Its manifest is whole, and that of another artifact."""
    other = next(entry for entry in list_entries(store, "apart"))
    (link.path / FILE_NAME).write_bytes((store.place.path_of(other.kind, other.key) / FILE_NAME).read_bytes())


LOSSES = [flip_a_bit, lose_the_manifest, empty_the_manifest, swap_with_another]
LOSSES += [invalidate, set_aside, put_out_of_sight]


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("lost", [1, 2, 3])
def test_what_a_tag_keeps_outlives_a_lost_link(
    store: LocalStore, lose: Callable[[LocalStore, Artifact], None], lost: int
) -> None:
    chain = make_chain(store)
    lose(store, chain[lost])
    garbage = find_garbage(store, [])
    assert [entry.kind for entry in garbage.artifacts] == ["apart"]
    collect(store, garbage)
    left = {entry.name for entry in list_entries(store)}
    assert left >= {name_of(each) for each in chain if each is not chain[lost]}


@pytest.mark.parametrize("lose", LOSSES)
def test_where_no_lineage_was_recorded_a_collection_keeps_or_refuses(
    store: LocalStore, lose: Callable[[LocalStore, Artifact], None]
) -> None:
    chain = make_chain(store)
    forget_lineages(store)
    lose(store, chain[2])
    if lose in (set_aside, put_out_of_sight):
        assert [entry.kind for entry in find_garbage(store, []).artifacts] == ["apart"]
        return
    with pytest.raises(StorageError, match=rf"{name_of(chain[2])}, a source of {name_of(chain[3])},"):
        find_garbage(store, [])
    assert len(find_garbage(store, [], despite_gaps=True).artifacts) >= 1
    remove_tag(store, "release")
    assert name_of(chain[4]) in {entry.name for entry in find_garbage(store, []).artifacts}


def test_what_was_recorded_is_all_generations_or_nothing(store: LocalStore) -> None:
    chain = make_chain(store)
    assert chain[4].manifest.lineage == sorted(name_of(each) for each in chain[:4])
    assert chain[0].manifest.lineage == []
    forget_lineages(store)
    assert make_artifact(store, "report", sources=(chain[4],)).manifest.lineage == sorted(map(name_of, chain))
    store.remove(chain[1].kind, chain[1].key)
    assert make_artifact(store, "report", 1, sources=(chain[4],)).manifest.lineage is None


def test_a_tag_given_between_looking_and_deleting_is_honoured(store: LocalStore) -> None:
    chain = make_chain(store)
    remove_tag(store, "release")
    garbage = find_garbage(store, [])
    assert len(garbage.artifacts) == 6
    set_tag(store, "late", name_of(chain[3]))
    stayed = collect(store, garbage)
    assert stayed == {name_of(each) for each in chain[:4]}
    assert {entry.name for entry in list_entries(store)} == stayed


def test_a_tag_given_while_its_chain_is_deleted_is_honoured_or_refused(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collection has asked for tags, holds the lock of the features, and has yet to delete them."""
    chain = make_chain(store)
    remove_tag(store, "release")
    store.remove(chain[4].kind, chain[4].key)
    store.remove(chain[3].kind, chain[3].key)
    errors: list[str] = []

    def tag() -> None:
        try:
            set_tag(LocalStore(store.root), "late", name_of(chain[2]))
        except StorageError as error:
            errors.append(str(error))

    tagger = threading.Thread(target=tag)
    monkeypatch.setattr(tags_module, "COLLECTION_SECONDS", 30)
    with store.place.making_now(chain[2].kind, chain[2].key):
        tagger.start()
        while "late" not in tags(store):
            pass
        store.remove(chain[2].kind, chain[2].key)
        tagger.join()
    assert len(errors) == 1 and "a collection has just deleted" in errors[0] and tags(store) == {}
    with pytest.raises(StorageError, match="has no artifact"):
        set_tag(store, "late", name_of(chain[2]))


def test_a_collection_clears_what_dead_processes_left(store: LocalStore) -> None:
    made = make_artifact(store, "features")
    identity = Identity(kind="reid", version=1, recipe={}, inputs={})
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from storage import durable
        from storage.local import LocalStore
        from storage.manifest import Identity
        store = LocalStore(Path({str(store.root)!r}))
        (store.root / ".trust" / "features" / f"{made.key}.{{os.getpid()}}.tmp").write_text("as once")
        (store.root / ".trust" / "features" / durable.partial_name("{made.key}.json")).write_text("as now")
        (store.root / ".cache" / "memo").mkdir(parents=True)
        for folder in (store.root, store.root / ".cache" / "memo"):
            (folder / durable.partial_name("note")).write_text("half")
        (store.root / ".list.lock").touch()
        with store.making(Identity.model_validate_json({identity.model_dump_json()!r})):
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    mine = store.root / ".trust" / "features" / durable.partial_name("other.json")
    old_of_mine = mine.with_name(f"{made.key}.{os.getpid()}.tmp")
    for path in (mine, old_of_mine):
        path.touch()
    with store.place.making_now("features", made.key):
        garbage = find_garbage(store, [name_of(made), f"reid/{identity.key}"])
        assert len(garbage.strays) == 6
        collect(store, garbage)
        assert {path.name for path in (store.root / ".locks").rglob("*") if path.is_file()} == {made.key}
    trust = store.root / ".trust" / "features"
    assert {*trust.iterdir()} == {mine, old_of_mine, trust / f"{made.key}.json"}
    assert not [path for path in store.root.rglob(".*") if path.name.startswith((".note.", ".list."))]
    assert find_garbage(store, [name_of(made)]).strays == ()


def test_a_newer_version_wrote_it(store: LocalStore) -> None:
    """Nothing is set aside, listed without it, or collected: one message says what to do."""
    made = make_artifact(store, "features")
    newer = made.manifest.model_copy(update={"schema_version": 2})
    (made.path / FILE_NAME).write_text(newer.to_json())
    for ask in (
        lambda: store.find(made.kind, made.key),
        lambda: store.inspect(made.kind, made.key),
        lambda: store.peek(made.kind, made.key),
        lambda: store.verify(made.kind, made.key),
        lambda: list_entries(store),
        lambda: find_garbage(store, []),
    ):
        with pytest.raises(
            NewerVersionError, match=r"newer version of personsearch .*: upgrade personsearch"
        ):
            ask()
    assert made.path.is_dir() and not (store.root / ".damaged").exists()
