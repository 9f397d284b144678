"""What a store holds, by its manifests alone: thousands of artifacts in a second."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from storage.artifacts import LocalStore
from storage.errors import StorageError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One artifact in a listing. `size` in bytes; `sources` are the `kind/key` that it was made from."""

    kind: str
    key: str
    created: str
    seconds: float
    size: int
    sources: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.key}"


def list_entries(store: LocalStore, kind: str | None = None) -> list[Entry]:
    """Every finished artifact, by kind and age; one whose manifest cannot be read is left out.

    So is, with a warning, one whose manifest names another artifact than the folder that it lies in.
    """
    entries = [entry for found in store.manifests(kind) if (entry := _parse(*found)) is not None]
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
    return _reach({entry.name: entry.sources for entry in entries}, roots)


def with_followers(entries: Iterable[Entry], roots: Iterable[str]) -> set[str]:
    """`roots` and everything that was made from them."""
    followers: dict[str, tuple[str, ...]] = defaultdict(tuple)
    names = set()
    for entry in entries:
        names.add(entry.name)
        for source in entry.sources:
            followers[source] += (entry.name,)
    return _reach({name: followers[name] for name in names}, roots)


def _reach(edges: Mapping[str, tuple[str, ...]], roots: Iterable[str]) -> set[str]:
    reached: set[str] = set()
    waiting = [name for name in roots if name in edges]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += (other for other in edges[name] if other in edges)
    return reached


def _parse(kind: str, key: str, raw: bytes) -> Entry | None:
    try:
        body = orjson.loads(raw)
        named = body["identity"]["kind"], body["key"]
        if named != (kind, key):
            log.warning("%s/%s is left out: its manifest is that of %s/%s", kind, key, *named)
            return None
        return Entry(
            kind=kind,
            key=key,
            created=body["created"],
            seconds=body["seconds"],
            size=sum(file["size"] for file in body["files"].values()) + len(raw),
            sources=tuple(sorted(set(body["sources"].values()))),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
