"""The store on object storage, against a local S3 server."""

from __future__ import annotations

import os
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from storage import remote
from storage.errors import StorageError
from storage.gc import collect, find_garbage
from storage.listing import list_entries
from storage.manifest import Identity, Manifest
from storage.opening import open_store
from storage.remote import RemoteStore
from storage.store import Artifact, Inspection
from storage.tags import remove_tag, set_tag, tags
from tests.storage.making import make_artifact, name_of


def test_a_store_that_verifies_first_sees_damage_of_the_same_size_there_and_here(
    s3: str, tmp_path: Path
) -> None:
    url = f"{s3}/{tmp_path.name}"
    store = RemoteStore(url, tmp_path / "one")
    made = make_artifact(store, "features")

    def careful() -> RemoteStore:
        return RemoteStore(url, tmp_path / "one", verify_first=True)

    copy = made.path / "nested" / "data.bin"
    stat = copy.stat()
    copy.write_bytes(b"rowz")
    os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (store.find("features", made.key) or made).path == made.path, "trusted by its stat"
    assert careful().inspect("features", made.key).problem is None, "what is stored is whole"
    found = store.find("features", made.key)
    assert found is not None and copy.read_bytes() == b"rows", "and the copy is fetched again"

    (part,) = (path for path in store.system.find(f"{store.prefix}/features") if path.endswith("data.bin"))
    store.system.pipe_file(part, b"rowz")
    assert store.inspect("features", made.key).problem is None
    problem = careful().inspect("features", made.key).problem
    assert problem == "nested/data.bin does not match its digest"


def test_what_one_machine_makes_another_finds(machines: tuple[RemoteStore, RemoteStore]) -> None:
    one, two = machines
    made = make_artifact(one, "features", content=b"x" * 100_000)
    found = two.find(made.kind, made.key)
    assert found is not None and found.manifest == made.manifest and found.path != made.path
    assert (found.path / "nested" / "data.bin").read_bytes() == b"x" * 100_000
    assert list(two.keys()) == [("features", made.key)] and two.verify(made.kind, made.key) == []
    assert [entry.name for entry in list_entries(two)] == [name_of(made)]


def test_a_manifest_and_a_tag_cost_one_request_each(machines: tuple[RemoteStore, RemoteStore]) -> None:
    one, _ = machines
    made = [make_artifact(one, "features", seed) for seed in range(3)]
    keys = [each.key for each in made]
    set_tag(one, "kept", name_of(made[0]))
    asked: list[str] = []

    def ask(request: Any, **_: object) -> None:
        asked.append(request.method)

    one.system.s3.meta.events.register("before-send.s3", ask)
    one.manifest_of("features", keys[0])
    assert asked == ["GET"]
    asked.clear()
    assert len(dict(one.read_manifests("features", keys))) == 3 and asked == ["GET"] * 3
    asked.clear()
    assert set(one.read_tags()) == {"kept"} and len(asked) == 2, "the list of the tags, and the tag"


def test_a_store_by_its_url(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONSEARCH_CACHE", str(tmp_path))
    store = open_store(f"{s3}/by-url")
    assert isinstance(store, RemoteStore) and not store.exists() and list(store.keys()) == []
    make_artifact(store, "features")
    assert store.exists() and str(store) == f"{s3}/by-url"


def test_of_two_writers_the_first_manifest_stays(machines: tuple[RemoteStore, RemoteStore]) -> None:
    one, two = machines
    identity = Identity(kind="reid", version=1, recipe={}, inputs={})
    with two.making(identity) as late:
        (late.path / "weights").write_bytes(b"of two")
        one.system.rm(f"{one.prefix}/.leases", recursive=True)  # it was cut off for long
        with one.making(identity) as first:
            (first.path / "weights").write_bytes(b"of one")
            first.commit("one")
        taken = late.commit("two")
    assert taken.content_digest == "one" and (taken.path / "weights").read_bytes() == b"of one"
    assert two.verify("reid", identity.key) == [] and list(two.place.work_areas()) == []


def test_made_again_it_is_replaced(machines: tuple[RemoteStore, RemoteStore]) -> None:
    one, two = machines
    made = make_artifact(one, "features")
    with two.making(made.manifest.identity, again=True) as work:
        (work.path / "other").write_bytes(b"new")
        work.commit("new")
    found = one.find(made.kind, made.key)
    assert found is not None and found.content_digest == "new"
    assert [path.name for path in found.path.iterdir() if path.name != "manifest.json"] == ["other"]


def test_an_upload_that_was_cut_off_is_invisible_and_goes_on(
    machines: tuple[RemoteStore, RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    put = one.system.put

    def cut_off(sources: list[str], targets: list[str]) -> None:
        put(sources[:1], targets[:1])
        raise ConnectionError("the line is dead")

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(one.system, "put", cut_off)
        make_artifact(one, "features")
    assert list(two.keys()) == [] and len(list(one.place.work_areas())) == 1
    made = make_artifact(one, "features")
    assert two.find(made.kind, made.key) is not None


@pytest.mark.parametrize("damage", ["flip", "delete", "manifest"])
def test_remote_damage_is_noticed_and_set_aside(
    machines: tuple[RemoteStore, RemoteStore], damage: str
) -> None:
    one, two = machines
    made = make_artifact(one, "features")
    file = "manifest.json" if damage == "manifest" else "nested/data.bin"
    (path,) = [each for each in one.system.find(one.prefix) if each.endswith(file)]
    if damage == "delete":
        one.system.rm_file(path)
    else:
        one.system.pipe_file(path, b"rowz")
    assert one.verify(made.kind, made.key) != []
    assert two.find(made.kind, made.key) is None
    assert list(one.keys()) == [] and one.find(made.kind, made.key) is None
    again = make_artifact(one, "features")
    assert two.find(again.kind, again.key) is not None


def test_damage_of_the_local_copy_is_mended_by_fetching(machines: tuple[RemoteStore, RemoteStore]) -> None:
    one, _ = machines
    made = make_artifact(one, "features")
    (made.path / "nested" / "data.bin").write_bytes(b"rowz")
    found = one.find(made.kind, made.key)
    assert found is not None and (found.path / "nested" / "data.bin").read_bytes() == b"rows"


def test_what_was_deleted_remotely_is_gone_for_all(machines: tuple[RemoteStore, RemoteStore]) -> None:
    one, two = machines
    made = make_artifact(one, "features")
    assert two.find(made.kind, made.key) is not None
    collect(one, find_garbage(one, []))
    assert two.find(made.kind, made.key) is None
    with pytest.raises(StorageError, match="missing or damaged"):
        two.local_path(made.kind, made.key)


def test_tags_are_those_of_every_machine(machines: tuple[RemoteStore, RemoteStore]) -> None:
    one, two = machines
    made = make_artifact(one, "features")
    set_tag(one, "release", name_of(made))
    assert tags(two) == {"release": name_of(made)} and find_garbage(two, []).artifacts == ()
    assert [entry.name for entry in list_entries(two)] == [name_of(made)]
    remove_tag(two, "release")
    assert tags(one) == {} and len(find_garbage(one, []).artifacts) == 1
    with pytest.raises(StorageError, match="no tag 'release'"):
        remove_tag(one, "release")


def test_what_a_tag_keeps_outlives_a_damaged_link(machines: tuple[RemoteStore, RemoteStore]) -> None:
    one, two = machines
    ingest = make_artifact(one, "ingest")
    features = make_artifact(one, "features", sources=(ingest,))
    reid = make_artifact(one, "reid", sources=(features,))
    apart = make_artifact(one, "apart")
    set_tag(one, "release", name_of(reid))
    one.system.pipe_file(f"{one.prefix}/{name_of(features)}/manifest.json", b"{")
    assert [entry.name for entry in find_garbage(two, []).artifacts] == [name_of(apart)]
    one.set_aside(features.kind, features.key, "a test")
    assert [entry.name for entry in find_garbage(two, []).artifacts] == [name_of(apart)]


def test_what_is_young_stays_with_what_it_was_made_from(
    machines: tuple[RemoteStore, RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    old = make_artifact(one, "features")
    young = make_artifact(one, "reid", sources=(old,))
    other = make_artifact(one, "features", 1)
    wrote = remote.modified

    def modified(entry: dict[str, Any]) -> datetime:
        return wrote(entry) - timedelta(days=0 if young.key in entry["name"] else 3)

    monkeypatch.setattr(remote, "modified", modified)
    garbage = find_garbage(two, [], timedelta(days=1))
    assert [entry.name for entry in garbage.artifacts] == [name_of(other)]
    assert len(find_garbage(two, [], timedelta(days=7)).artifacts) == 0
    assert len(find_garbage(two, []).artifacts) == 3


def test_what_no_manifest_names_is_collected_when_it_is_old(
    machines: tuple[RemoteStore, RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    made = make_artifact(one, "features")
    with one.making(made.manifest.identity, again=True) as work:
        (work.path / "data.bin").write_bytes(b"others")
        again = work.commit("content")
    one.system.pipe_file(f"{one.prefix}/reid/unfinished/0123/data", b"half")
    damaged = make_artifact(one, "reid")
    one.set_aside("reid", damaged.key, "a test")
    keep = [name_of(again)]
    assert find_garbage(two, keep, timedelta(hours=1)).objects == ()
    garbage = find_garbage(two, keep)
    found = {objects.name.rpartition("/")[0]: objects.size for objects in garbage.objects}
    assert set(found) == {".damaged", name_of(made), "reid/unfinished"} and found["reid/unfinished"] == 4
    resumed = f"{one.prefix}/reid/unfinished/0123/more"
    one.system.pipe_file(resumed, b"an upload goes on")
    wrote = remote.modified
    # An object's time has whole seconds.
    monkeypatch.setattr(
        remote, "modified", lambda entry: wrote(entry) + timedelta(seconds=2 * (entry["name"] == resumed))
    )
    collect(two, garbage)
    left = one.system.find(one.prefix)
    assert resumed in left and len(left) == 4
    assert one.verify("features", again.key) == []


def test_what_another_machine_replaces_while_it_is_fetched_is_fetched_again(
    machines: tuple[RemoteStore, RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    made = make_artifact(one, "features")
    fetch = two._fetch

    def replaced_before(manifest: Manifest) -> Artifact:
        if manifest == made.manifest:
            with one.making(manifest.identity, again=True) as work:
                (work.path / "data.bin").write_bytes(b"others")
                work.commit("new")
            collect(one, find_garbage(one, [name_of(made)]))
        return fetch(manifest)

    monkeypatch.setattr(two, "_fetch", replaced_before)
    found = two.find("features", made.key)
    assert found is not None and found.content_digest == "new"


def test_a_look_fetches_nothing_and_notices_what_is_missing(
    machines: tuple[RemoteStore, RemoteStore],
) -> None:
    one, two = machines
    assert two.inspect("features", "0") == Inspection()
    made = make_artifact(one, "features")
    found = two.inspect("features", made.key)
    assert found.artifact is not None and found.artifact.manifest == made.manifest
    assert not found.artifact.path.exists()
    (data,) = (path for path in one.system.find(one.prefix) if path.endswith("data.bin"))
    one.system.pipe_file(data, b"longer than it was")
    assert two.inspect("features", made.key).problem == "nested/data.bin has 18 bytes, not 4"
    one.system.rm_file(data)
    assert two.inspect("features", made.key).problem == "nested/data.bin is missing"
    assert list(two.keys()) == [("features", made.key)]


def test_readers_see_all_or_nothing_while_one_writes(machines: tuple[RemoteStore, RemoteStore]) -> None:
    one, two = machines
    identity = Identity(kind="features", version=1, recipe={"seed": 0}, inputs={})
    seen: list[Artifact] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if (found := two.find("features", identity.key)) is not None:
                seen.append(found)

    watcher = threading.Thread(target=watch)
    watcher.start()
    made = make_artifact(one, "features", content=b"y" * 500_000)
    done.set()
    watcher.join()
    assert all(artifact.manifest == made.manifest for artifact in seen)


def test_whatever_is_asked_a_server_that_does_not_answer_is_said(
    machines: tuple[RemoteStore, RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Botocore's own errors, which nothing above this store knows, come from nowhere."""
    one, _ = machines
    made = make_artifact(one, "features")
    set_tag(one, "release", name_of(made))
    silence = EndpointConnectionError(endpoint_url="http://nowhere")

    def silent(*_: object, **__: object) -> bool:
        raise silence

    for method, ask in (
        ("exists", lambda: one.exists()),
        ("ls", lambda: list(one.keys())),
        ("find", lambda: list(one.stamps(made.kind))),
        ("rm_file", lambda: one.reopen(made.kind, made.key)),
    ):
        with monkeypatch.context() as patch, pytest.raises(ConnectionError, match="Could not connect"):
            patch.setattr(one.system, method, silent)
            ask()
    # Of many objects, fsspec returns the errors in the place of what lies there.
    monkeypatch.setattr(one.system, "cat", lambda paths, **_: dict.fromkeys(paths, silence))
    for ask_all in (lambda: list(one.read_manifests(made.kind, [made.key])), lambda: tags(one)):
        with pytest.raises(ConnectionError, match="Could not connect"):
            ask_all()


def test_a_server_that_does_not_answer_and_absent_credentials_are_told_apart(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # else botocore waits longer and longer, too
    silent = RemoteStore(f"{s3}/nowhere", tmp_path)
    silent.system.retries = 1
    with pytest.raises(ConnectionError, match=r"Could not connect to the endpoint URL"):
        silent.find("features", "0")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        RemoteStore(f"{s3}/nobody", tmp_path).find("features", "0")
