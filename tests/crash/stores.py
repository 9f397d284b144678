"""What operations share: a store with a chain of artifacts, its faults, and what a person sees of it."""

from __future__ import annotations

from pathlib import Path

from storage.errors import StorageError
from storage.gc import collect, find_garbage
from storage.listing import list_entries
from storage.local import LocalStore
from storage.store import Artifact
from storage.tags import set_tag, tags
from tests.crash.bench import Outcome
from tests.storage.making import make_artifact, name_of


def store_of(folder: Path, name: str = "store") -> LocalStore:
    return LocalStore(folder / name)


def found(store: LocalStore, kind: str) -> Artifact:
    """The artifact of a kind with the least key."""
    for each, key in store.keys(kind):
        artifact = store.find(each, key)
        if artifact is not None:
            return artifact
    raise StorageError(f"no artifact of kind {kind}")


def prepare_chain(folder: Path) -> None:
    """Two artifacts of a chain, the second tagged, and one that nothing needs."""
    store = store_of(folder)
    first = make_artifact(store, "ingest")
    second = make_artifact(store, "features", sources=(first,))
    make_artifact(store, "reid", 7)
    set_tag(store, "kept", name_of(second))


def check_store(folder: Path, *needed: str, name: str = "store") -> list[str]:
    """What is wrong with a store: damage, tags that point nowhere, kinds `needed` that are gone."""
    store = store_of(folder, name)
    verified = {entry.name: store.verify(entry.kind, entry.key) for entry in list_entries(store)}
    found = [f"{artifact}: {'; '.join(faults)}" for artifact, faults in verified.items() if faults]
    for each, artifact in tags(store).items():
        if artifact not in verified:
            found.append(f"the tag {each} points to {artifact}, which is gone")
    usable = {kind for kind, key in _all_keys(store) if store.find(kind, key) is not None}
    found += [f"no artifact of kind {kind} is left" for kind in needed if kind not in usable]
    if any((store.root / ".damaged").glob("*")):
        found.append("an artifact was set aside as damaged")
    return found


def check_chain(folder: Path) -> list[str]:
    return check_store(folder, "ingest", "features")


def check_all(folder: Path) -> list[str]:
    return check_store(folder, "ingest", "features", "reid")


def _all_keys(store: LocalStore) -> set[tuple[str, str]]:
    return {*store.keys(), *((kind, key) for kind, key, _ in store.place.replaced())}


def outcome_of_store(folder: Path, name: str = "store") -> Outcome:
    """What a person sees of a store, once a collection has cleared what dead processes left."""
    store = store_of(folder, name)
    everything = {entry.name for entry in list_entries(store)}
    collect(store, find_garbage(store, everything))
    rest = find_garbage(store, everything)
    artifacts = {}
    for entry in list_entries(store):
        manifest = store.manifest_of(entry.kind, entry.key)
        artifacts[entry.name] = [manifest.content_digest, *sorted(manifest.files)]
    leftovers = [str(path) for path in rest.strays] + [each.name for each in rest.set_aside]
    return {"artifacts": artifacts, "tags": tags(store), "left": leftovers}


def nothing(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
