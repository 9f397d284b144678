"""What artifacts were made from, through all generations.

A manifest names the direct sources of its artifact, and since `made_by.lineage` was introduced all of them: a
chain then outlives the loss of a link. The sources of an artifact whose manifest is damaged or gone are
unknown, unless one that was made from it has recorded them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.errors import StorageError

if TYPE_CHECKING:
    from storage.listing import Entry
    from storage.manifest import Manifest
    from storage.store import Store

RECORD = "lineage"
"""The field of `made_by` with the sources of all generations; older versions keep it, and do not read it."""


def manifests_behind(
    store: Store, name: str, seen: set[str], first: Container[str] = ()
) -> Iterator[tuple[str, Manifest | None]]:
    """The manifest of an artifact `kind/key` and those of all that it was made from: sources come first.

    None stands for one that is gone. Artifacts in `seen` are left out, and what comes is added to it. Of the
    sources of one artifact, those whose input has a name in `first` come before the others.
    Raises StorageError for a damaged manifest.
    """
    if name in seen:
        return
    seen.add(name)
    kind, _, key = name.partition("/")
    try:
        manifest = store.manifest_of(kind, key)
    except FileNotFoundError:
        yield name, None
        return
    for source in sorted(manifest.sources, key=lambda each: each not in first):
        yield from manifests_behind(store, manifest.sources[source], seen, first)
    yield name, manifest


@dataclass(frozen=True)
class Ancestors:
    """`names` (`kind/key`) that are reached, and of which of them it is `unknown` what they were made from.

    `unknown` maps each of these to the artifact that it was reached from.
    """

    names: frozenset[str]
    unknown: Mapping[str, str]


class Lineages:
    """What many artifacts were made from, by their manifests; several may speak of one artifact."""

    def __init__(self, manifests: Iterable[Entry]) -> None:
        self._made: dict[str, list[Entry]] = {}
        self.add(manifests)

    def add(self, manifests: Iterable[Entry]) -> None:
        for made in manifests:
            self._made.setdefault(made.name, []).append(made)

    def reach(self, roots: Iterable[str]) -> Ancestors:
        """`roots` and everything that they were made from, there or not."""
        reached: dict[str, str | None] = {}
        waiting: list[tuple[str, str | None]] = [(name, None) for name in roots]
        covered: set[str] = set()
        while waiting:
            name, follower = waiting.pop()
            if name in reached:
                continue
            reached[name] = follower
            said = self._made.get(name, ())
            recorded = {source for made in said for source in made.lineage or ()}
            covered |= recorded
            sources = recorded.union(*(made.sources for made in said))
            waiting += ((source, name) for source in sources)
        unknown = {
            name: follower or name
            for name, follower in reached.items()
            if name not in self._made and name not in covered
        }
        return Ancestors(frozenset(reached), unknown)


def lineage_of(sources: Iterable[str], manifest_of: Callable[[str, str], Manifest]) -> list[str] | None:
    """Every source of every generation, sorted; None when a manifest that would tell is missing or damaged.

    `manifest_of` gives the manifest of a kind and a key, as a store's does.
    """
    found: set[str] = set()
    waiting = list(sources)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            kind, _, key = name.partition("/")
            manifest = manifest_of(kind, key)
        except (FileNotFoundError, StorageError):
            return None
        if manifest.lineage is None:
            waiting += manifest.sources.values()
        else:
            found.update(manifest.lineage)
    return sorted(found)
