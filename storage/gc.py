"""Garbage collection: find what nothing needs, say how much space it takes, and delete it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage.errors import NewerVersionError, StorageError
from storage.folders import remove_tree, size_of
from storage.lineage import Lineages
from storage.listing import Entry, list_entries, parse_entry
from storage.store import Objects, Store
from storage.tags import require_artifacts, tags

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folder:
    """A directory that is not an artifact: unfinished work, or something set aside or half deleted."""

    name: str
    path: Path
    size: int
    maker_of: str | None = None
    """The artifact, `kind/key`, that the process building it may need this folder for."""


@dataclass(frozen=True)
class Garbage:
    """What can be deleted; sizes in bytes."""

    artifacts: tuple[Entry, ...]
    work_areas: tuple[Folder, ...]
    set_aside: tuple[Folder, ...]
    kept: int
    """Number of artifacts that stay."""
    lineages: Lineages
    """The sources of all artifacts, as far as any manifest records them."""
    objects: tuple[Objects, ...] = ()
    """Object storage: objects that no manifest names."""
    before: datetime | None = None
    """Objects written after this moment stay."""
    strays: tuple[Path, ...] = ()
    """Locks and unfinished files of processes that died."""

    @property
    def size(self) -> int:
        listed = sum(entry.size for entry in self.artifacts) + sum(each.size for each in self.objects)
        return listed + sum(folder.size for folder in (*self.work_areas, *self.set_aside))


def find_garbage(
    store: Store, keep: Iterable[str], min_age: timedelta = timedelta(0), *, despite_gaps: bool = False
) -> Garbage:
    """Everything except the artifacts that `keep` (names `kind/key`) or a tag names, and their sources.

    An artifact or work area that a process of this machine is building is never garbage. Artifacts younger
    than `min_age` stay with their sources, and so do young objects that no manifest names: on object storage,
    another machine may be about to use them, which cannot be seen from here.

    Raises StorageError if a tag points to no artifact, or, without `despite_gaps`, if the sources of an
    artifact that stays are unknown: in both cases something that should be kept could be deleted.
    """
    before = datetime.now(UTC) - min_age
    entries = list_entries(store)
    require_artifacts(store, {entry.name for entry in entries})
    wanted = {*keep, *tags(store).values()}
    if min_age:
        wanted |= store.written_since(before)
    # After the listing, which misses artifacts that are being replaced; those are found here.
    lineages = Lineages([*entries, *_out_of_sight_entries(store)])
    kept = _reached(store, lineages, wanted, despite_gaps=despite_gaps)
    locked = store.place.locked()
    garbage = [
        entry
        for entry in entries
        if (name := entry.name) not in kept
        and (name not in locked or store.place.holder(entry.kind, entry.key) is None)
    ]
    work_areas = [
        _folder(f"{kind}/{key}", store.place.work_path_of(kind, key), f"{kind}/{key}")
        for kind, key in store.place.work_areas()
        if f"{kind}/{key}" not in wanted and store.place.holder(kind, key) is None
    ]
    aside = [
        _folder(path.relative_to(store.root).as_posix(), path)
        for folder in store.place.leftover_paths
        if folder.is_dir()
        for path in sorted(folder.iterdir())
    ]
    aside += [
        _folder(path.relative_to(store.root).as_posix(), path, f"{kind}/{key}")
        for kind, key, path in store.place.replaced()
        if store.place.path_of(kind, key).is_dir()
    ]
    return Garbage(
        artifacts=tuple(garbage),
        work_areas=tuple(work_areas),
        set_aside=tuple(aside),
        kept=len(entries) - len(garbage),
        lineages=lineages,
        objects=tuple(store.stray_objects(before)),
        before=before,
        strays=tuple(store.place.strays()),
    )


def _out_of_sight_entries(store: Store) -> Iterator[Entry]:
    for raw in store.hidden_manifests():
        with contextlib.suppress(NewerVersionError):
            entry = parse_entry(raw, str(store))
            if entry is not None:
                yield entry


def _reached(store: Store, lineages: Lineages, roots: Set[str], *, despite_gaps: bool) -> frozenset[str]:
    """`roots` and all their sources. Raises StorageError if these cannot be determined."""
    while True:
        reach = lineages.reach(roots)
        back = []
        for name, follower in sorted(reach.unknown.items()):
            kind, _, key = name.partition("/")
            is_gap = True
            try:
                manifest = store.manifest_of(kind, key)
                if (manifest.kind, manifest.key) == (kind, key):
                    back.append(manifest)
                    is_gap = False
            except FileNotFoundError:
                is_gap = name not in roots  # a root without an artifact has not been built yet
            except StorageError as error:
                log.warning("%s", error)
            if is_gap and not despite_gaps:
                raise StorageError(_gap(store, name, follower))
        if not back:
            return reach.names
        # They were put back between the listing and now.
        lineages.add(entry for each in back if (entry := parse_entry(each.to_json().encode(), each.key)))


def _gap(store: Store, name: str, follower: str) -> str:
    whose = name if follower == name else f"{name}, a source of {follower},"
    return (
        f"nothing was deleted: the manifest of {whose} is damaged or missing in {store}, so its sources are"
        " unknown. Build it again (run its config) or pull it from another store; or remove the tag"
        " that keeps it (`store untag`); or pass --all to delete even if its sources are lost"
    )


def collect(store: Store, garbage: Garbage, in_use: Callable[[], Set[str]] = frozenset) -> frozenset[str]:
    """Delete the garbage, artifacts before their sources. If interrupted, the rest is still garbage.

    Before each deletion, under the key's lock, this checks again what processes are building, what `in_use`
    and tags name, and their sources: those stay. Artifacts that another process has deleted are skipped.
    Returns the names, `kind/key`, of those that stayed.
    """
    hidden: list[Path] = []
    spared = _Spared(store, garbage.lineages, in_use)
    try:
        for folder in _out_of_sight(store, garbage, spared):
            hidden.append(folder)
    finally:
        # Deleting can take long, so no lock is held meanwhile.
        for folder in hidden:
            remove_tree(folder)
    for objects in garbage.objects:
        store.remove_objects(objects, garbage.before or datetime.now(UTC))
    for path in garbage.strays:
        store.place.remove_stray(path)
    return frozenset(spared.stayed)


def _out_of_sight(store: Store, garbage: Garbage, spared: _Spared) -> Iterator[Path]:
    """Move garbage out of sight, and yield each folder as soon as no other process can use it."""
    for entry in reversed(sources_first(garbage.artifacts)):
        with spared.unless(entry.name) as free:
            if not free:
                continue
            with contextlib.suppress(FileNotFoundError):
                away = store.take_away(entry.kind, entry.key)
                if away is not None:
                    yield away
            store.place.log_path_of(entry.kind, entry.key).unlink(missing_ok=True)
    for folder in (*garbage.work_areas, *garbage.set_aside):
        if folder.maker_of is None:
            yield folder.path
            continue
        with spared.unless(folder.maker_of) as free:
            if free:
                with contextlib.suppress(FileNotFoundError):
                    yield store.place.hide(folder.path)


class _Spared:
    """What is being built, used or tagged now. Sources are computed only when that has changed."""

    def __init__(self, store: Store, lineages: Lineages, in_use: Callable[[], Set[str]]) -> None:
        self._store = store
        self._lineages = lineages
        self._in_use = in_use
        self._roots: Set[str] = frozenset()
        self._used: Set[str] = frozenset()
        self._in_doubt = False
        self.stayed: set[str] = set()

    @contextmanager
    def unless(self, name: str) -> Iterator[bool]:
        """Whether the artifact `kind/key` can be deleted; if so, no process can build it inside the block."""
        with self._store.place.making_now(*name.split("/")) as alone:
            used = alone and self._is_used(name)
            if used or not alone:
                self.stayed.add(name)
                why = "a run or a tag uses it now" if used else "another process is building or deleting it"
                log.warning("%s stays: %s", name, why)
            yield alone and not used

    def _is_used(self, name: str) -> bool:
        roots = {*self._in_use(), *tags(self._store).values()}
        if roots != self._roots:
            reach = self._lineages.reach(roots)
            self._roots, self._used = roots, reach.names
            self._in_doubt = any(unknown not in roots for unknown in reach.unknown)
        return self._in_doubt or name in self._used


def sources_first(entries: Iterable[Entry]) -> list[Entry]:
    """The entries in an order in which each comes after those that it was made from."""
    entries = list(entries)
    by_name = {entry.name: entry for entry in entries}
    ordered: dict[str, Entry] = {}

    def visit(entry: Entry) -> None:
        if entry.name in ordered:
            return
        for source in (*entry.sources, *(entry.lineage or ())):
            if source in by_name:
                visit(by_name[source])
        ordered[entry.name] = entry

    for entry in entries:
        visit(entry)
    return list(ordered.values())


def _folder(name: str, path: Path, maker_of: str | None = None) -> Folder:
    return Folder(name, path, size_of(path), maker_of)
