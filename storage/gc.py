"""Garbage collection: what nobody asks for any more, what deleting it would free, and its deletion."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage.artifacts import LocalStore, MakingNow, Objects
from storage.folders import remove_tree, size_of
from storage.listing import Entry, list_entries, with_sources
from storage.tags import require_artifacts, tags

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
    Raises StorageError when a tag means no artifact: a damaged one would let go what it is there to keep.
    """
    before = datetime.now(UTC) - min_age
    entries = list_entries(store)
    require_artifacts(store, {entry.name for entry in entries})
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


def collect(
    store: LocalStore, garbage: Garbage, in_use: Callable[[], Set[str]] = frozenset
) -> frozenset[str]:
    """Delete it, followers before what they were made from; interrupted, the rest is garbage as before.

    What a process has begun to make since stays, and so does what `in_use` names by then, with all that it
    was made from: it is asked before each deletion, under the key's lock. What another has deleted since is
    no error. Returns the names, `kind/key`, of what stayed.
    """
    hidden: list[Path] = []
    try:
        with store.collecting() as making_now:
            spared = _Spared(making_now, garbage.artifacts, in_use)
            for folder in _out_of_sight(store, garbage, spared):
                hidden.append(folder)
    finally:
        # Deleting takes as long as the file system takes, and no lock is held for it.
        for folder in hidden:
            remove_tree(folder)
    for objects in garbage.objects:
        store.remove_objects(objects, garbage.before or datetime.now(UTC))
    return frozenset(spared.stayed)


def _out_of_sight(store: LocalStore, garbage: Garbage, spared: _Spared) -> Iterator[Path]:
    """Folders that nobody can see or use any more, each as soon as it is one."""
    for entry in reversed(_sources_first(garbage.artifacts)):
        with spared.unless(entry.name) as free:
            if not free:
                continue
            with contextlib.suppress(FileNotFoundError):
                away = store.take_away(entry.kind, entry.key)
                if away is not None:
                    yield away
            store.log_path_of(entry.kind, entry.key).unlink(missing_ok=True)
    for folder in (*garbage.work_areas, *garbage.set_aside):
        if folder.maker_of is None:
            yield folder.path
            continue
        with spared.unless(folder.maker_of) as free:
            if free:
                with contextlib.suppress(FileNotFoundError):
                    yield store.hide(folder.path)


class _Spared:
    """What is made or used by now; what the used was made from is worked out only when that has changed."""

    def __init__(
        self, making_now: MakingNow, artifacts: tuple[Entry, ...], in_use: Callable[[], Set[str]]
    ) -> None:
        self._making_now = making_now
        self._artifacts = artifacts
        self._in_use = in_use
        self._roots: Set[str] = frozenset()
        self._used: Set[str] = frozenset()
        self.stayed: set[str] = set()

    @contextmanager
    def unless(self, name: str) -> Iterator[bool]:
        """Whether the artifact `kind/key` is free to go; then nobody can make it while this holds."""
        with self._making_now(*name.split("/")) as alone:
            used = alone and self._is_used(name)
            if used or not alone:
                self.stayed.add(name)
                why = "a run has begun to use it" if used else "a process makes it now, or deletes it, too"
                log.warning("%s stays: %s", name, why)
            yield alone and not used

    def _is_used(self, name: str) -> bool:
        roots = self._in_use()
        if roots != self._roots:
            self._roots, self._used = roots, roots | with_sources(self._artifacts, roots)
        return name in self._used


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
