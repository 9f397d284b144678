"""The operations that must survive a death at any of their calls."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from data_catalog.rows import Rows, to_tables
from data_catalog.snapshot import SnapshotWriter
from flows.cli.new_folder import new_folder
from flows.run.records import RunRecord, records_folder
from storage import listing, manifest_index
from storage.errors import StorageError
from storage.feature_store import RowCodec, create_features, open_features, principal_axes, verify_features
from storage.feature_store.layout import ARRAY
from storage.feature_store.metadata import read_layout
from storage.feature_store.shard_files import read_shard
from storage.gc import collect, find_garbage
from storage.listing import list_entries
from storage.local import LocalStore
from storage.manifest import Identity
from storage.store import Artifact
from storage.tags import remove_tag, set_tag, tags
from storage.transfer import copy_artifact
from tests.crash.bench import Operation, Outcome
from tests.storage.making import make_artifact, name_of


def store_of(folder: Path, name: str = "store") -> LocalStore:
    return LocalStore(folder / name)


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


def commit(folder: Path) -> None:
    store = store_of(folder)
    source = found(store, "features")
    make_artifact(store, "reid", 1, sources=(source,))


def found(store: LocalStore, kind: str) -> Artifact:
    """The artifact of a kind with the least key."""
    for each, key in store.keys(kind):
        artifact = store.find(each, key)
        if artifact is not None:
            return artifact
    raise StorageError(f"no artifact of kind {kind}")


def replace(folder: Path) -> None:
    """The artifact that nothing needs, made again with other content."""
    store = store_of(folder)
    identity = Identity(kind="reid", version=1, recipe={"seed": 7}, inputs={})
    with store.making(identity, again=True) as work:
        (work.path / "nested").mkdir(exist_ok=True)
        (work.path / "nested" / "data.bin").write_bytes(b"other rows")
        (work.path / "note.txt").write_text("again")
        work.commit("again")


def collection(folder: Path) -> None:
    """Everything goes that the tag does not keep."""
    store = store_of(folder)
    collect(store, find_garbage(store, ()))


def tag(folder: Path) -> None:
    store = store_of(folder)
    set_tag(store, "best", name_of(found(store, "features")))


def untag(folder: Path) -> None:
    store = store_of(folder)
    if "kept" in store.read_tags():
        remove_tag(store, "kept")


@contextmanager
def indexed() -> Iterator[None]:
    """Every kind has an index, and every folder comes to rest at once."""
    always = {listing: ("INDEXED_FROM", 1), manifest_index: ("SETTLED_NS", -(1 << 60))}
    with ExitStack() as patches:
        for module, (name, value) in always.items():
            patches.enter_context(patch.object(module, name, value))
        yield


def prepare_index(folder: Path) -> None:
    """A chain with its index, and artifacts that came, went and were replaced since."""
    prepare_chain(folder)
    store = store_of(folder)
    with indexed():
        list_entries(store)
    make_artifact(store, "reid", 8)
    replace(folder)
    make_artifact(store, "gallery")


def listing_by_index(folder: Path) -> None:
    with indexed():
        list_entries(store_of(folder))


def check_index(folder: Path) -> list[str]:
    """The listing by the index is that by the manifests, at the first look and at the second."""
    store = store_of(folder)
    shutil.copytree(store.root, folder / "bare", ignore=shutil.ignore_patterns(manifest_index.FOLDER))
    bare = list_entries(store_of(folder, "bare"))
    shutil.rmtree(folder / "bare")
    with indexed():
        looks = [list_entries(store), list_entries(store)]
    return [*check_all(folder), *(f"the index lists {look}" for look in looks if look != bare)]


def reopen(folder: Path) -> None:
    """An artifact is made a work area again, and finished."""
    store = store_of(folder)
    if any(True for _ in store.keys("reid")):
        artifact = found(store, "reid")
        store.reopen(artifact.kind, artifact.key)
    make_artifact(store, "reid", 7)


def export(folder: Path) -> None:
    source, target = store_of(folder), store_of(folder, "other")
    for kind in ("ingest", "features"):
        copy_artifact(source, target, name_of(found(source, kind)))


def prepare_twins(folder: Path) -> None:
    """Two artifacts with a file in common, of which this store has one."""
    source = store_of(folder, "other")
    first = make_artifact(source, "features", 1)
    make_artifact(source, "features", 2)
    copy_artifact(source, store_of(folder), name_of(first))


def pull(folder: Path) -> None:
    """The other comes, and shares the file; however small, it is looked for."""
    source = store_of(folder, "other")
    with patch("storage.receiving.WORTH_LOOKING", 0):
        for entry in list_entries(source):
            copy_artifact(source, store_of(folder), entry.name)


def check_pull(folder: Path) -> list[str]:
    return [*check_store(folder, "features"), *check_store(folder, "features", name="other")]


def check_export(folder: Path) -> list[str]:
    return [*check_all(folder), *check_store(folder, name="other")]


def outcome_of_export(folder: Path) -> Outcome:
    return {name: outcome_of_store(folder, name) for name in ("store", "other")}


ROWS, ROW = 40, (4, 8, 8)


def rows_of(shard: int) -> np.ndarray:
    return np.random.default_rng(shard).standard_normal((16, *ROW)).astype(np.float16)[: ROWS - 16 * shard]


def prepare_features(folder: Path) -> None:
    """A feature store of three shards of which one is made."""
    store = store_of(folder)
    with store.making(FEATURES) as work:
        writer = create_features(work.path / "features.zarr", ROWS, ROW, rows_per_shard=16)
        writer.write(0, rows_of(0))
        assert writer.complete_shards == (0,)


FEATURES = Identity(kind="features", version=1, recipe={"roi": 16}, inputs={})


def resume(folder: Path) -> None:
    with store_of(folder).making(FEATURES) as work:
        if work.made is None:
            with create_features(work.path / "features.zarr", ROWS, ROW, rows_per_shard=16) as writer:
                for shard in sorted({0, 1, 2} - set(writer.complete_shards)):
                    writer.write(16 * shard, rows_of(shard))
            work.commit("features")


def of_two_directions(shard: int) -> np.ndarray:
    mix = np.array([[1, 0], [1, 1], [0, 1], [2, 1]], np.float32)
    return np.einsum("ck,nkyx->ncyx", mix, rows_of(shard)[:, :2].astype(np.float32)).astype(np.float16)


def encode(folder: Path) -> None:
    """The same with rows of fewer channels, whose axes are kept beside them."""
    axes = principal_axes([of_two_directions(0)], 2)
    codec = RowCodec(ROW, np.dtype(np.float16), "int8", axes)
    with store_of(folder).making(ENCODED) as work:
        if work.made is None:
            with create_features(
                work.path / "features.zarr", ROWS, ROW, rows_per_shard=16, codec=codec
            ) as writer:
                for shard in sorted({0, 1, 2} - set(writer.complete_shards)):
                    writer.write(16 * shard, of_two_directions(shard))
            work.commit("encoded")


ENCODED = Identity(kind="features", version=1, recipe={"roi": 16, "codec": "int8"}, inputs={})


def outcome_of_encoded(folder: Path) -> Outcome:
    group = found(store_of(folder), "features").path / "features.zarr"
    with open_features(group) as reader:
        rows = reader.rows(np.arange(ROWS)).astype(np.float32)
    error = np.abs(rows - np.concatenate([of_two_directions(each) for each in range(3)]))
    return {
        **outcome_of_store(folder),
        "near": bool((error < 0.05).all()),
        "damaged": len(verify_features(group)),
    }


def outcome_of_features(folder: Path) -> Outcome:
    group = found(store_of(folder), "features").path / "features.zarr"
    layout = read_layout(group)
    same = [bool(np.array_equal(read_shard(group / ARRAY, layout, each), rows_of(each))) for each in range(3)]
    return {**outcome_of_store(folder), "rows": same, "damaged": len(verify_features(group))}


DESCRIPTION: Mapping[str, Any] = {
    "adapter": "drawn",
    "adapter_version": 1,
    "root_fingerprint": "",
    "counts_expected": {},
    "counts_found": {"boxes": 3},
}


def snapshot(folder: Path) -> None:
    identity = Identity(kind="ingest", version=1, recipe={"dataset": "drawn"}, inputs={})
    with store_of(folder).making(identity) as work:
        if work.made is None:
            rows = Rows("boxes.csv")
            names = [f"{number}.jpg" for number in range(3)]
            for name in names:
                rows.images([name], name, "train")
            rows.boxes(
                names,
                np.array([[0, 0, 10, 20]] * 3, np.float32),
                "train",
                [1, 2, 3],
                person_id=["a", "b", None],
            )
            with SnapshotWriter(work.path, "drawn") as writer:
                writer.write(to_tables([rows]))
                writer.finish(writer.images_and_queries()[1], lambda: DESCRIPTION)
            work.commit("snapshot")


def record(folder: Path) -> None:
    """A run's record from its beginning to its end."""
    written = RunRecord(
        records_folder(folder / "store") / "20260101T000000-abcdef.json", "config.yaml", started="now"
    )
    written.stages = [{"stage": "ingest", "state": "made", "key": "1"}]
    written._write()
    written.stages.append({"stage": "reid", "state": "made", "key": "2"})
    written.finished = "then"
    written._write()


def check_record(folder: Path) -> list[str]:
    faults = []
    for path in records_folder(folder / "store").glob("*.json"):
        try:
            body = json.loads(path.read_bytes())
        except ValueError as error:
            faults.append(f"{path.name}: {error}")
        else:
            faults += [] if body["stages"] else [f"{path.name} has no stages"]
    return faults


def outcome_of_record(folder: Path) -> Outcome:
    (path,) = records_folder(folder / "store").glob("*.json")
    body = json.loads(path.read_bytes())
    return {name: body[name] for name in ("stages", "finished", "started", "config")}


def fill_folder(folder: Path) -> None:
    """As the exports of datasets do; a folder that is there is whole, and is not written again."""
    if (folder / "exported").exists():
        return
    with new_folder(folder / "exported", "OUT") as partial:
        (partial / "labels").mkdir()
        (partial / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
        (partial / "data.yaml").write_text("names: [person]\n")


def check_folder(folder: Path) -> list[str]:
    """A folder that is there is whole."""
    exported = folder / "exported"
    return [] if not exported.exists() or len(outcome_of_folder(folder)) == 2 else ["a part of the folder"]


def outcome_of_folder(folder: Path) -> Outcome:
    exported = folder / "exported"
    texts = {file.name: file.read_text() for file in exported.rglob("*") if file.is_file()}
    return {name: text for name, text in texts.items() if text}


def nothing(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("commit", prepare_chain, commit, check_all, outcome_of_store),
        Operation("replace", prepare_chain, replace, check_all, outcome_of_store),
        Operation("listing", prepare_index, listing_by_index, check_index, outcome_of_store),
        Operation("reopen", prepare_chain, reopen, check_chain, outcome_of_store),
        Operation("gc", prepare_chain, collection, check_chain, outcome_of_store),
        Operation("tag", prepare_chain, tag, check_all, outcome_of_store),
        Operation("untag", prepare_chain, untag, check_all, outcome_of_store),
        Operation("export", prepare_chain, export, check_export, outcome_of_export),
        Operation("pull", prepare_twins, pull, check_pull, outcome_of_export),
        Operation("features", prepare_features, resume, check_store, outcome_of_features),
        Operation("encoded features", nothing, encode, check_store, outcome_of_encoded),
        Operation("snapshot", nothing, snapshot, check_store, outcome_of_store),
        Operation("records", nothing, record, check_record, outcome_of_record),
        Operation("folder", nothing, fill_folder, check_folder, outcome_of_folder),
    )
}


def carelessly(folder: Path) -> None:
    """What the harness must notice: a file is written in place, then said to be whole."""
    (folder / "note.json").write_text(json.dumps({"rows": list(range(100))}))


def check_note(folder: Path) -> list[str]:
    json.loads((folder / "note.json").read_bytes())
    return []


def prepare_note(folder: Path) -> None:
    nothing(folder)
    (folder / "note.json").write_text("{}")


CARELESS = Operation(
    "careless",
    prepare_note,
    carelessly,
    check_note,
    lambda f: dict(json.loads((f / "note.json").read_bytes())),
)
