"""The operations on object storage that must survive a death at any of their requests.

As `operations`, over a store's URL and the folder of one machine; beside that lie the folders of others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage.gc import collect, find_garbage
from storage.listing import list_entries
from storage.local import LocalStore
from storage.manifest import Identity
from storage.remote import RemoteStore
from storage.tags import move_tag, remove_tag, set_tag, tags
from storage.transfer import copy_artifact
from tests.crash.bench import Outcome
from tests.crash.stores import prepare_chain, store_of
from tests.storage.making import make_artifact


@dataclass(frozen=True)
class RemoteOperation:
    name: str
    prepare: Callable[[str, Path], None]
    run: Callable[[str, Path], None]
    needed: tuple[str, ...] = ()
    """Kinds that must be there at every point."""


def nothing(url: str, machine: Path) -> None:
    machine.mkdir(parents=True, exist_ok=True)


def upload(url: str, machine: Path) -> None:
    store = RemoteStore(url, machine)
    make_artifact(store, "reid", sources=(make_artifact(store, "ingest"),))


def uploaded(url: str, machine: Path) -> None:
    """Made by another machine."""
    upload(url, machine.with_name("other"))
    nothing(url, machine)


def download(url: str, machine: Path) -> None:
    store = RemoteStore(url, machine)
    assert all(store.find(entry.kind, entry.key) for entry in list_entries(store))


def local_chain(url: str, machine: Path) -> None:
    """A local store whose artifacts will be copied to the remote one."""
    prepare_chain(machine.with_name("other"))
    nothing(url, machine)


def push(url: str, machine: Path) -> None:
    source, target = store_of(machine.with_name("other")), RemoteStore(url, machine)
    for entry in list_entries(source):
        copy_artifact(source, target, entry.name)


def chain(url: str, machine: Path) -> None:
    """Two artifacts of a chain, the second tagged, and one that nothing needs, made by another machine."""
    local_chain(url, machine)
    push(url, machine.with_name("second"))
    local = LocalStore(machine.with_name("other") / "store")
    (tagged,) = tags(local).values()
    set_tag(RemoteStore(url, machine.with_name("second")), "kept", tagged)


def replace(url: str, machine: Path) -> None:
    """The artifact that nothing needs, made again with other content."""
    identity = Identity(kind="reid", version=1, recipe={"seed": 7}, inputs={})
    with RemoteStore(url, machine).making(identity, again=True) as work:
        (work.path / "nested").mkdir(exist_ok=True)
        (work.path / "nested" / "data.bin").write_bytes(b"other rows")
        (work.path / "note.txt").write_text("again")
        work.commit("again")


def tag(url: str, machine: Path) -> None:
    store = RemoteStore(url, machine)
    (entry,) = list_entries(store, "reid")
    set_tag(store, "best", entry.name)


def move(url: str, machine: Path) -> None:
    store = RemoteStore(url, machine)
    (entry,) = list_entries(store, "reid")
    assert move_tag(store, "kept", tags(store)["kept"], entry.name)


def untag(url: str, machine: Path) -> None:
    store = RemoteStore(url, machine)
    if "kept" in store.read_tags():
        remove_tag(store, "kept")


def collection(url: str, machine: Path) -> None:
    """Everything goes that the tag does not keep."""
    store = RemoteStore(url, machine)
    collect(store, find_garbage(store, ()))


def removal(url: str, machine: Path) -> None:
    store = RemoteStore(url, machine)
    for entry in list_entries(store, "reid"):
        store.remove(entry.kind, entry.key)


Reading = Callable[[RemoteStore, str, str], list[str]]
"""Reads every byte of an artifact by its kind and key, and gives its faults."""


def downloaded(store: RemoteStore, kind: str, key: str) -> list[str]:
    """By a download, which digests what it receives."""
    return [] if store.find(kind, key) else ["it cannot be downloaded"]


def verified(store: RemoteStore, kind: str, key: str) -> list[str]:
    """By `store verify`."""
    return store.verify(kind, key)


def check(url: str, folder: Path, needed: Collection[str], read: Reading) -> list[str]:
    """What another machine finds wrong with the store, and the kinds `needed` that are gone."""
    store = RemoteStore(url, folder / "reader")
    found, usable = [], set()
    for entry in list_entries(store):
        faults = read(store, entry.kind, entry.key)
        if faults:
            found.append(f"{entry.name}: {'; '.join(faults)}")
        else:
            usable.add(entry.name)
    found += [
        f"the tag {each} points to {name}, which is gone"
        for each, name in tags(store).items()
        if name not in usable
    ]
    kinds = {name.partition("/")[0] for name in usable}
    found += [f"no artifact of kind {kind} is left" for kind in needed if kind not in kinds]
    return found + [f"{name} is damaged" for name in store._bucket.listed(".damaged")]


def outcome(url: str, folder: Path) -> Outcome:
    """What another machine sees, once a collection has cleared away what no manifest names."""
    store = RemoteStore(url, folder / "reader")
    everything = {entry.name for entry in list_entries(store)}
    collect(store, find_garbage(store, everything))
    artifacts = {name: store.manifest_of(*name.split("/")).content_digest for name in sorted(everything)}
    later = datetime.now(UTC) + timedelta(seconds=5)
    strays = [each.name for each in store.stray_objects(later)]
    return {"artifacts": artifacts, "tags": tags(store), "left": strays}


REMOTE = {
    operation.name: operation
    for operation in (
        RemoteOperation("upload", nothing, upload),
        RemoteOperation("download", uploaded, download, ("ingest", "reid")),
        RemoteOperation("push", local_chain, push),
        RemoteOperation("remote replace", chain, replace, ("ingest", "features", "reid")),
        RemoteOperation("remote tag", chain, tag, ("ingest", "features", "reid")),
        RemoteOperation("remote move tag", chain, move, ("ingest", "features", "reid")),
        RemoteOperation("remote untag", chain, untag, ("ingest", "features", "reid")),
        RemoteOperation("remote gc", chain, collection, ("ingest", "features")),
        RemoteOperation("remote removal", chain, removal, ("ingest", "features")),
    )
}
