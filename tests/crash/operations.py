"""The operations that must survive a death at any of their calls."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from flows.cli.new_folder import new_folder
from flows.run.records import RunRecord, records_folder
from storage import listing, manifest_index
from storage.folders import whole_folder
from storage.gc import collect, find_garbage
from storage.listing import list_entries
from storage.manifest import Identity
from storage.tags import move_tag, remove_tag, set_tag, tags
from storage.transfer import copy_artifact
from tests.crash.bench import Operation, Outcome
from tests.crash.making_operations import MAKING
from tests.crash.stores import (
    check_all,
    check_chain,
    check_store,
    found,
    nothing,
    outcome_of_store,
    prepare_chain,
    store_of,
)
from tests.storage.making import make_artifact, name_of


def commit(folder: Path) -> None:
    store = store_of(folder)
    source = found(store, "features")
    make_artifact(store, "reid", 1, sources=(source,))


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


def move(folder: Path) -> None:
    """The tag goes from one artifact to another, as a promotion moves it."""
    store = store_of(folder)
    assert move_tag(store, "kept", tags(store)["kept"], name_of(found(store, "reid")))


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


_FILES = {"labels/a.txt": "0 0.5 0.5 0.1 0.1\n", "data.yaml": "names: [person]\n"}
_BEFORE = {"labels/b.txt": "0 0.2 0.2 0.1 0.1\n", "old.yaml": "names: [someone]\n"}


def prepare_folder(folder: Path) -> None:
    """An export that is there already."""
    nothing(folder)
    with whole_folder(folder / "replaced") as partial:
        _fill(partial, _BEFORE)


def fill_folders(folder: Path) -> None:
    """As exports do: one folder is new, and is not written again once it is there; one is replaced."""
    if not (folder / "exported").exists():
        with new_folder(folder / "exported", "OUT") as partial:
            _fill(partial, _FILES)
    with whole_folder(folder / "replaced") as partial:
        _fill(partial, _FILES)


def _fill(folder: Path, files: Mapping[str, str]) -> None:
    (folder / "labels").mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


def check_folders(folder: Path) -> list[str]:
    """A folder that is there is whole: the old one or the new one."""
    may_be = {"exported": (None, _FILES), "replaced": (None, _BEFORE, _FILES)}
    there = {name: _texts(folder / name) for name in may_be}
    return [f"{name} holds {there[name]}" for name, wanted in may_be.items() if there[name] not in wanted]


def outcome_of_folders(folder: Path) -> Outcome:
    return {path.name: _texts(path) for path in folder.iterdir()}


def _texts(folder: Path) -> dict[str, str] | None:
    """The files of a folder; None without the folder."""
    if not folder.is_dir():
        return None
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("commit", prepare_chain, commit, check_all, outcome_of_store),
        Operation("replace", prepare_chain, replace, check_all, outcome_of_store),
        Operation("listing", prepare_index, listing_by_index, check_index, outcome_of_store),
        Operation("reopen", prepare_chain, reopen, check_chain, outcome_of_store),
        Operation("gc", prepare_chain, collection, check_chain, outcome_of_store),
        Operation("tag", prepare_chain, tag, check_all, outcome_of_store),
        Operation("move tag", prepare_chain, move, check_all, outcome_of_store),
        Operation("untag", prepare_chain, untag, check_all, outcome_of_store),
        Operation("export", prepare_chain, export, check_export, outcome_of_export),
        Operation("pull", prepare_twins, pull, check_pull, outcome_of_export),
        *MAKING,
        Operation("records", nothing, record, check_record, outcome_of_record),
        Operation("folder", prepare_folder, fill_folders, check_folders, outcome_of_folders),
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
