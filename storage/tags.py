"""Tags: names for artifacts that garbage collection must keep."""

from __future__ import annotations

import re
import time
from collections.abc import Container

from storage.errors import StorageError
from storage.listing import list_entries, with_sources
from storage.store import Store

COLLECTION_SECONDS = 2.0
"""Longer than a collection takes from checking what is in use to renaming an artifact away."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def set_tag(store: Store, tag: str, artifact: str) -> None:
    """Point `tag` to the artifact `kind/key`. On return it is durable, and collections honour it.

    Raises StorageError for an invalid name, for a missing artifact, and if a collection deletes the artifact
    or one of its sources at the same moment.
    """
    kept = _kept(store, require_name(tag), artifact)
    content = store.read_tags().get(tag)
    before = None if content is None else content.decode(errors="replace").strip()
    store.write_tag(tag, artifact)
    _require_kept(store, tag, before, artifact, kept)


def move_tag(store: Store, tag: str, before: str | None, artifact: str) -> bool:
    """Like `set_tag`, if the tag points to `before` (None: if it does not exist); False otherwise."""
    kept = _kept(store, require_name(tag), artifact)
    if not store.swap_tag(tag, before, artifact):
        return False
    _require_kept(store, tag, before, artifact, kept)
    return True


def _kept(store: Store, tag: str, artifact: str) -> set[str]:
    """The artifact and its sources, which a tag keeps. Raises StorageError if it is missing."""
    kept = with_sources(list_entries(store), [artifact])
    if artifact not in kept:
        raise StorageError(f"{store} has no artifact {artifact!r} to tag; `store ls` shows what it has")
    return kept


def _require_kept(store: Store, tag: str, before: str | None, artifact: str, kept: set[str]) -> None:
    """Take the tag back, with a StorageError, if a collection has not seen it."""
    for name in sorted(kept):
        kind, _, key = name.partition("/")
        if not stays(store, kind, key):
            store.swap_tag(tag, artifact, before)
            raise StorageError(
                f"{artifact} was not tagged: a collection has just deleted {name}; run its config again, then"
                " tag it"
            )


def stays(store: Store, kind: str, key: str) -> bool:
    """Whether an artifact still exists after a tag or the record of a run has named it.

    A collection that checked what is in use before then holds the artifact's lock until it has deleted it. A
    process that builds the artifact again holds the lock too, for much longer, but deletes nothing.
    """
    deadline = time.monotonic() + COLLECTION_SECONDS
    while store.place.holder(kind, key) is not None and time.monotonic() < deadline:
        if store.peek(kind, key) is None:
            return False
        time.sleep(0.01)
    return store.peek(kind, key) is not None


def remove_tag(store: Store, tag: str) -> None:
    """Remove a tag; its artifact stays. Raises StorageError if the tag is unknown."""
    try:
        store.remove_tag(require_name(tag))
    except FileNotFoundError as error:
        known = ", ".join(store.read_tags()) or "none"
        raise StorageError(f"{store} has no tag {tag!r}; it has: {known}") from error


def tags(store: Store) -> dict[str, str]:
    """The artifact, `kind/key`, of every tag. Raises StorageError for a tag that is not text."""
    return {tag: _text(store, tag, content) for tag, content in store.read_tags().items()}


def require_artifacts(store: Store, names: Container[str]) -> None:
    """Raise StorageError if a tag points to something that is not among the artifacts `names`.

    It is then unknown what the tag should keep: its file may be damaged, or the manifest of its artifact.
    """
    for tag, artifact in tags(store).items():
        if artifact not in names:
            raise StorageError(
                f"the tag {tag!r} of {store} points to {artifact!r}, which does not exist: set the "
                "tag again (`store tag`), or remove it (`store untag`)"
            )


def _text(store: Store, tag: str, content: bytes) -> str:
    try:
        return content.decode().strip()
    except UnicodeDecodeError as error:
        raise StorageError(
            f"the tag {tag!r} of {store} is damaged: set it again (`store tag`), or remove it (`store untag`)"
        ) from error


def require_name(tag: str) -> str:
    """The tag, if its name is a valid one. Raises StorageError otherwise."""
    if not _NAME.fullmatch(tag):
        raise StorageError(f"{tag!r} cannot be a tag: use letters, digits, dots, dashes and underscores")
    return tag
