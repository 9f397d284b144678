"""What a store holds, by its manifests alone: a million artifacts in a few seconds, thanks to an index."""

from __future__ import annotations

import gc
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple

from storage.errors import NewerVersionError, StorageError
from storage.lineage import Lineages
from storage.manifest import FILE_NAME, checked_body, recorded_lineage
from storage.manifest_index import EMPTY, UNKNOWN, Columns, IndexHeader, ManifestIndex, folder_stamp
from storage.store import Store

log = logging.getLogger(__name__)

INDEXED_FROM = 1000
"""Artifacts of a kind from which an index is kept: fewer manifests are read in a tenth of a second."""
_MOST = 1 << 63


class Entry(NamedTuple):
    """One artifact in a listing. `size` in bytes; `made_from` are the `kind/key` that it was made from.

    `all_from` are those of every generation, None where its manifest does not have them. Both are text with
    a space between names, since most listings need neither.
    """

    kind: str
    key: str
    created: str
    seconds: float
    size: int
    made_from: str = ""
    all_from: str | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.key}"

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(self.made_from.split())

    @property
    def lineage(self) -> tuple[str, ...] | None:
        return None if self.all_from is None else tuple(self.all_from.split())

    def as_data(self) -> dict[str, Any]:
        """For other programs."""
        return {
            **dict(zip(("kind", "key", "created", "seconds", "size"), self, strict=False)),
            "sources": self.sources,
            "lineage": self.lineage,
        }


def list_entries(store: Store, kind: str | None = None) -> list[Entry]:
    """Every finished artifact, by kind and age; one whose manifest is damaged is left out.

    An artifact whose manifest does not match its folder is left out too, with a warning.
    Raises NewerVersionError when a newer version of this software has written into the store.
    """
    entries: list[Entry] = []
    with no_collections():
        for each in [kind] if kind else store.kinds():
            entries += _entries_of(store, each)
    return entries


def held(store: Store) -> dict[str, tuple[int, int]]:
    """How many artifacts of each kind a store holds, and their bytes.

    By the headers of the indexes where these are up to date.
    """
    found = {}
    for kind in store.kinds():
        header = _index_of(store, kind).header()
        if header is None or header.others or not _is_of(header, store, kind):
            entries = list_entries(store, kind)
            found[kind] = len(entries), sum(entry.size for entry in entries)
        else:
            found[kind] = header.count, header.size
    return {kind: each for kind, each in found.items() if each[0]}


def _is_of(header: IndexHeader, store: Store, kind: str) -> bool:
    """Whether the rows under this header are those of the folder as it is now."""
    return header.folder is not None and header.folder == folder_stamp(store.kind_folder(kind))


def _index_of(store: Store, kind: str) -> ManifestIndex:
    # A folder may have several paths; the place of a URL on this machine is not a store of its own.
    whose = "a folder" if store.kind_folder(kind) is not None else str(store)
    return ManifestIndex(store.root, whose, kind)


def _entries_of(store: Store, kind: str) -> list[Entry]:
    index = _index_of(store, kind)
    header, columns = index.read() or (None, EMPTY)
    if header is not None and _is_of(header, store, kind):
        return _with_unfit(_as_entries(kind, columns), _read(store, kind, header.others))
    folder = store.kind_folder(kind)
    before = folder_stamp(folder)
    stamps = dict(store.stamps(kind))
    if len(stamps) < INDEXED_FROM:
        if header is not None:
            index.drop()
        return _ordered(filter(None, _read(store, kind, stamps).values()))
    rows = [
        row
        for row, (key, stamp) in enumerate(zip(columns.keys, columns.stamps, strict=True))
        if stamps.get(key) == stamp
    ]
    entries = _as_entries(kind, columns)
    unread = stamps.keys() - {columns.keys[row] for row in rows}
    read = _read(store, kind, unread)
    fresh = [entry for entry in read.values() if entry is not None and _fits(entry)]
    if fresh or len(rows) < len(columns):
        kept = entries if len(rows) == len(entries) else [entries[row] for row in rows]
        entries = _ordered([*kept, *fresh])
        columns = _as_columns(entries, stamps)
    others = tuple(sorted(read.keys() - {entry.key for entry in fresh}))
    unchanged = folder is not None and before == folder_stamp(folder) and index.is_settled(folder)
    now = IndexHeader(before if unchanged else None, len(columns), sum(columns.sizes), others)
    if fresh or now != header:
        index.write(now, columns)
    return _with_unfit(entries, {key: read[key] for key in others})


def _read(store: Store, kind: str, keys: Iterable[str]) -> dict[str, Entry | None]:
    """What the manifests of these keys say; None for one that is damaged, or that is another artifact's."""
    read: dict[str, Entry | None] = {}
    for key, raw in store.read_manifests(kind, keys):
        entry = parse_entry(raw, f"{store}/{kind}/{key}/{FILE_NAME}")
        if entry is not None and (entry.kind, entry.key) != (kind, key):
            log.warning("%s/%s is left out: its manifest is that of %s", kind, key, entry.name)
            entry = None
        read[key] = entry
    return read


def _with_unfit(entries: list[Entry], read: Mapping[str, Entry | None]) -> list[Entry]:
    """The entries of an index with those that it cannot hold."""
    unfit = [entry for entry in read.values() if entry is not None]
    return _ordered([*entries, *unfit]) if unfit else entries


def _ordered(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=itemgetter(Entry._fields.index("created"), Entry._fields.index("key")))


def _as_entries(kind: str, columns: Columns) -> list[Entry]:
    lines = [*columns.lines, None]  # UNKNOWN is the last
    rows = zip(
        repeat(kind),
        columns.keys,
        columns.created,
        columns.seconds,
        columns.sizes,
        map(lines.__getitem__, columns.sources),
        map(lines.__getitem__, columns.lineages),
        strict=False,
    )
    return list(map(partial(tuple.__new__, Entry), rows))  # a million in half a second


def _as_columns(entries: Sequence[Entry], stamps: Mapping[str, str]) -> Columns:
    places: dict[str, int] = {}
    sources = [places.setdefault(entry.made_from, len(places)) for entry in entries]
    lineages = [
        UNKNOWN if entry.all_from is None else places.setdefault(entry.all_from, len(places))
        for entry in entries
    ]
    keys = [entry.key for entry in entries]
    return Columns(
        keys=keys,
        stamps=[stamps[key] for key in keys],
        created=[entry.created for entry in entries],
        seconds=[entry.seconds for entry in entries],
        sizes=[entry.size for entry in entries],
        sources=sources,
        lineages=lineages,
        lines=list(places),
    )


def _fits(entry: Entry) -> bool:
    """Whether the index can hold what a manifest says; one that says it otherwise is read every time."""
    texts = (entry.created, entry.made_from, entry.all_from or "")
    return (
        all(isinstance(text, str) and text.isprintable() for text in texts)
        and isinstance(entry.seconds, int | float)
        and abs(entry.size) < _MOST
    )


@contextmanager
def no_collections() -> Iterator[None]:
    """Spare Python the search for garbage, which it repeats as millions of objects come, and finds none."""
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_enabled:
            gc.enable()


def resolve_name(entries: Iterable[Entry], name: str) -> Entry:
    """The artifact that `name` means: `kind/key`, `key`, or the first characters of a key.

    Raises StorageError when it is none or several.
    """
    kind, slash, start = name.rpartition("/")
    found = [entry for entry in entries if entry.key.startswith(start) and (not slash or entry.kind == kind)]
    if len(found) == 1 and name:
        return found[0]
    if not found:
        raise StorageError(f"the store has no artifact {name!r}; `store ls` shows what it has")
    some = ", ".join(entry.name for entry in found[:3])
    raise StorageError(f"{name!r} is not one artifact but {len(found)} ({some} ...): give more of the key")


def with_sources(entries: Iterable[Entry], roots: Iterable[str]) -> set[str]:
    """`roots` and everything that they were made from and that the store still has."""
    entries = list(entries)
    there = {entry.name for entry in entries}
    return there & Lineages(entries).reach(roots).names


def with_followers(entries: Iterable[Entry], roots: Iterable[str]) -> set[str]:
    """`roots` and everything that was made from them."""
    followers: dict[str, list[str]] = defaultdict(list)
    names = set()
    for entry in entries:
        names.add(entry.name)
        for source in {*entry.sources, *(entry.lineage or ())}:
            followers[source].append(entry.name)
    reached: set[str] = set()
    waiting = [name for name in roots if name in names]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += followers[name]
    return reached


def parse_entry(raw: bytes, where: str) -> Entry | None:
    """What the manifest at `where` says of its artifact; None when it is damaged.

    Raises NewerVersionError when a newer version of this software wrote it.
    """
    try:
        body = checked_body(raw, where)
        lineage = recorded_lineage(body["made_by"])
        return Entry(
            kind=body["identity"]["kind"],
            key=body["key"],
            created=body["created"],
            seconds=body["seconds"],
            size=sum(file["size"] for file in body["files"].values()) + len(raw),
            made_from=" ".join(sorted(set(body["sources"].values()))),
            all_from=None if lineage is None else " ".join(lineage),
        )
    except NewerVersionError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
