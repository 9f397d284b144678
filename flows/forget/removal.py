"""Deletes what a store holds of a subject: whatever was made from its rows first, its snapshots last.

So an interruption leaves the snapshots that say what is still to be deleted, and the same command continues.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from data_catalog.decode_checks import memory_of
from data_catalog.hash_cache import HashCache
from flows.config.pins import TRAINED
from flows.errors import ConfigError
from flows.forget.holders import Holders
from flows.plan.catalog import KIND
from flows.run.reach import in_use
from flows.run.records import is_running, read_records
from storage import durable
from storage.errors import StorageError
from storage.folders import remove_tree
from storage.store import Store
from storage.tags import remove_tag

CACHE = ".cache"
SNAPSHOTS = "snapshots"
"""The folder of the cache that says which snapshot is a dataset's own; all others hold memos."""


@dataclass(frozen=True)
class Removed:
    """Numbers of what was deleted, and trainings that had not finished, as `kind/key`."""

    artifacts: int
    records: int
    tags: tuple[str, ...]
    unfinished: tuple[str, ...]


def require_quiet(store: Store) -> None:
    """Raise ConfigError while a run is active in the store: it may read or add what is to be deleted."""
    running = [record.name for record in read_records(store.root) if is_running(record)]
    if running:
        raise ConfigError(
            f"the run {running[0]} is still running in {store}: wait until it has ended "
            "(`personsearch status`), then run the same command again"
        )


def remove(store: Store, holders: Holders) -> Removed:
    """Delete the holders that are not models, and what the store remembers, logs and records of them.

    Raises StorageError when another process uses one of them; the same call continues where it stopped.
    """
    names = holders.names
    for tag in holders.tagged:
        with contextlib.suppress(StorageError):  # another process was faster
            remove_tag(store, tag)
    records = _remove_records(store, names)
    unfinished = _remove_work(store)
    _remove_memos(store)
    data = [name for name in names if not name.startswith(f"{KIND}/")]
    for name in data:
        _remove_artifact(store, name)
    _remove_logs(store)
    _remove_aside(store)
    _flush(store)  # before the snapshots go, which say what must not come back
    for name in names[len(data) :]:
        _remove_artifact(store, name)
    # An interrupted removal may have left something there, although no snapshot holds the subject now.
    _remove_aside(store)
    _flush(store)
    return Removed(len(names), records, tuple(holders.tagged), unfinished)


def forget_files(store: Store, files: Collection[tuple[str, str]]) -> None:
    """Delete what is remembered of files: each a path under a dataset's root and its SHA-256, or ''."""
    HashCache(store.root / CACHE / "hashes.sqlite").forget(sorted({path for path, _ in files}))
    memory_of(store.root).forget({digest for _, digest in files})


def _remove_artifact(store: Store, name: str) -> None:
    kind, _, key = name.partition("/")
    with store.place.making_now(kind, key) as alone:
        if not alone or name in in_use(store):
            raise StorageError(
                f"{name} is in use by another process, so it was not deleted: wait until it is done, then "
                "run the same command again"
            )
        away = None
        with contextlib.suppress(FileNotFoundError):
            away = store.take_away(kind, key)
        store.place.log_path_of(kind, key).unlink(missing_ok=True)
    if away is not None:
        remove_tree(away)


def _remove_records(store: Store, names: Iterable[str]) -> int:
    """The records of runs that used or made any of these; they quote messages and logs."""
    wanted, count = set(names), 0
    for record in read_records(store.root):
        if wanted.intersection(record.artifacts()):
            durable.remove(record.path)
            count += 1
    return count


def _remove_work(store: Store) -> tuple[str, ...]:
    """Unfinished work of stages that hold rows. Trainings stay: their names are returned."""
    unfinished = []
    for kind, key in list(store.place.work_areas()):
        if kind in TRAINED:
            unfinished.append(f"{kind}/{key}")
            continue
        with store.place.making_now(kind, key) as alone:
            if alone:
                with contextlib.suppress(FileNotFoundError):
                    store.place.hide(store.place.work_path_of(kind, key))
                store.place.log_path_of(kind, key).unlink(missing_ok=True)
    return tuple(unfinished)


def _remove_logs(store: Store) -> None:
    """The logs of stages that are not trainings and left no artifact, such as one that failed."""
    for file in sorted((store.root / ".logs").glob("*/*.log")):
        kind, key = file.parent.name, file.stem
        if kind not in TRAINED and store.place.holder(kind, key) is None and store.peek(kind, key) is None:
            file.unlink(missing_ok=True)


def _remove_memos(store: Store) -> None:
    """All short answers that are remembered: they are worked out again, and none says of whom it is."""
    cache = store.root / CACHE
    for folder in sorted(cache.iterdir()) if cache.is_dir() else ():
        if folder.is_dir() and folder.name != SNAPSHOTS:
            remove_tree(folder)


def _flush(store: Store) -> None:
    """Bring to the disk what was deleted so far, so that no power cut brings it back."""
    hidden = [store.root / name for name in (".logs", ".work", ".replaced")]
    folders = [each for folder in hidden if folder.is_dir() for each in (folder, *folder.iterdir())]
    for folder in (*folders, *store.place.leftover_paths, store.root / CACHE):
        if folder.is_dir():
            durable.flush(folder)


def _remove_aside(store: Store) -> None:
    """Artifacts that were set aside as damaged, replaced, or half deleted: nothing uses them."""
    for folder in (*store.place.leftover_paths, store.root / ".replaced"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            remove_tree(path)
