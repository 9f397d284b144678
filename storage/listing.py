"""What a store holds, by its manifests alone: thousands of artifacts in a second."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from storage.errors import NewerVersionError, StorageError
from storage.lineage import Lineages
from storage.manifest import FILE_NAME, checked_body, recorded_lineage
from storage.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One artifact in a listing. `size` in bytes; `sources` are the `kind/key` that it was made from.

    `lineage` are those of every generation, None where its manifest does not have them.
    """

    kind: str
    key: str
    created: str
    seconds: float
    size: int
    sources: tuple[str, ...]
    lineage: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.key}"


def list_entries(store: Store, kind: str | None = None) -> list[Entry]:
    """Every finished artifact, by kind and age; one whose manifest is damaged is left out.

    An artifact whose manifest does not match its folder is left out too, with a warning.
    Raises NewerVersionError when a newer version of this software has written into the store.
    """
    entries = []
    for each, key, raw in store.manifests(kind):
        entry = parse_entry(raw, f"{store}/{each}/{key}/{FILE_NAME}")
        if entry is not None and (entry.kind, entry.key) != (each, key):
            log.warning("%s/%s is left out: its manifest is that of %s", each, key, entry.name)
        elif entry is not None:
            entries.append(entry)
    return sorted(entries, key=lambda entry: (entry.kind, entry.created, entry.key))


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
    """`roots` and everything that they were made from, as far as the store still has it."""
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
            sources=tuple(sorted(set(body["sources"].values()))),
            lineage=None if lineage is None else tuple(lineage),
        )
    except NewerVersionError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
