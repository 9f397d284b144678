"""Garbage collection: what nobody asks for any more, what deleting it would free, and its deletion."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage.artifacts import LocalStore, Objects
from storage.folders import remove_tree, size_of
from storage.listing import Entry, list_entries, with_sources
from storage.tags import tags

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folder:
    """A directory that is not an artifact: unfinished work, what was set aside, what waits for deletion."""

    name: str
    path: Path
    size: int
    maker_of: str | None = None
    """The artifact, `kind/key`, whose maker may need it."""


@dataclass(frozen=True)
class Garbage:
    """What nothing reaches; sizes in bytes."""

    artifacts: tuple[Entry, ...]
    work_areas: tuple[Folder, ...]
    set_aside: tuple[Folder, ...]
    kept: int
    """How many artifacts stay."""
    objects: tuple[Objects, ...] = ()
    """On object storage: what no manifest names."""
    before: datetime | None = None
    """Of these, what was written since stays."""

    @property
    def size(self) -> int:
        listed = sum(entry.size for entry in self.artifacts) + sum(each.size for each in self.objects)
        return listed + sum(folder.size for folder in (*self.work_areas, *self.set_aside))


def find_garbage(store: LocalStore, keep: Iterable[str], min_age: timedelta = timedelta(0)) -> Garbage:
    """What neither `keep` (names `kind/key`) nor a tag reaches, itself or by what it was made from.

    An artifact or work area that a process of this machine is making now is never garbage. Artifacts younger
    than `min_age` stay with what they were made from, and so do objects that no manifest names: on object
    storage another machine may be about to use them, which cannot be seen from here.
    """
    before = datetime.now(UTC) - min_age
    entries = list_entries(store)
    wanted = {*keep, *tags(store).values()}
    if min_age:
        wanted |= store.written_since(before)
    kept = with_sources(entries, wanted)
    garbage = [
        entry for entry in entries if entry.name not in kept and store.holder(entry.kind, entry.key) is None
    ]
    work_areas = [
        _folder(f"{kind}/{key}", store.work_path_of(kind, key), f"{kind}/{key}")
        for kind, key in store.work_areas()
        if f"{kind}/{key}" not in wanted and store.holder(kind, key) is None
    ]
    aside = [
        _folder(path.relative_to(store.root).as_posix(), path)
        for folder in store.leftover_paths
        if folder.is_dir()
        for path in sorted(folder.iterdir())
    ]
    aside += [
        _folder(path.relative_to(store.root).as_posix(), path, f"{kind}/{key}")
        for kind, key, path in store.replaced()
        if store.path_of(kind, key).is_dir()
    ]
    return Garbage(
        artifacts=tuple(garbage),
        work_areas=tuple(work_areas),
        set_aside=tuple(aside),
        kept=len(entries) - len(garbage),
        objects=tuple(store.stray_objects(before)),
        before=before,
    )


def collect(store: LocalStore, garbage: Garbage) -> None:
    """Delete it, followers before what they were made from; interrupted, the rest is garbage as before.

    What a process has begun to make since stays; what another has deleted since is no error.
    """
    for entry in reversed(_sources_first(garbage.artifacts)):
        with _unless_made(store, entry.name) as alone:
            if alone:
                with contextlib.suppress(FileNotFoundError):
                    store.remove(entry.kind, entry.key)
                store.log_path_of(entry.kind, entry.key).unlink(missing_ok=True)
    for folder in (*garbage.work_areas, *garbage.set_aside):
        if folder.maker_of is None:
            remove_tree(folder.path)
            continue
        with _unless_made(store, folder.maker_of) as alone:
            if alone:
                store.discard(folder.path)
    for objects in garbage.objects:
        store.remove_objects(objects, garbage.before or datetime.now(UTC))


@contextmanager
def _unless_made(store: LocalStore, name: str) -> Iterator[bool]:
    """Whether nobody makes the artifact `kind/key`, and then nobody can while this holds."""
    with store.making_now(*name.split("/")) as alone:
        if not alone:
            log.warning("%s stays: a process has begun to make it", name)
        yield alone


def _sources_first(entries: tuple[Entry, ...]) -> list[Entry]:
    by_name = {entry.name: entry for entry in entries}
    ordered: dict[str, Entry] = {}

    def visit(entry: Entry) -> None:
        if entry.name in ordered:
            return
        for source in entry.sources:
            if source in by_name:
                visit(by_name[source])
        ordered[entry.name] = entry

    for entry in entries:
        visit(entry)
    return list(ordered.values())


def _folder(name: str, path: Path, maker_of: str | None = None) -> Folder:
    return Folder(name, path, size_of(path), maker_of)
