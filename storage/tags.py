"""Tags: names that a person gives to artifacts, which garbage collection then leaves alone."""

from __future__ import annotations

import re
import time
from collections.abc import Container

from storage.errors import StorageError
from storage.listing import list_entries, with_sources
from storage.store import Store

COLLECTION_SECONDS = 2.0
"""More than a collection takes from its question what is in use to the rename by which an artifact goes."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def set_tag(store: Store, tag: str, artifact: str) -> None:
    """Let `tag` point to the artifact `kind/key` from now on; on return it lasts, and collections honour it.

    Raises StorageError for a bad name, and when the artifact is not there, or a collection deletes it, or
    something that it was made from, meanwhile.
    """
    entries = list_entries(store)
    kept = with_sources(entries, [artifact])
    if artifact not in kept:
        raise StorageError(f"{store} has no artifact {artifact!r} to tag; `store ls` shows what it has")
    before = store.read_tags().get(_checked(tag))
    store.write_tag(tag, artifact)
    for name in sorted(kept):
        kind, _, key = name.partition("/")
        if not stays(store, kind, key):
            if before is None:
                store.remove_tag(tag)
            else:
                store.write_tag(tag, before.decode().strip())
            raise StorageError(
                f"{artifact} is not tagged: a collection has just deleted {name}; run its config again, then"
                " tag it"
            )


def stays(store: Store, kind: str, key: str) -> bool:
    """Whether an artifact is still there, now that a tag or the record of a run names it.

    A collection that asked what is in use before that holds the artifact's lock until it has deleted it; so
    does, for much longer, whoever makes it again, who deletes nothing.
    """
    deadline = time.monotonic() + COLLECTION_SECONDS
    while store.holder(kind, key) is not None and time.monotonic() < deadline:
        if store.peek(kind, key) is None:
            return False
        time.sleep(0.01)
    return store.peek(kind, key) is not None


def remove_tag(store: Store, tag: str) -> None:
    """Forget a tag, not its artifact. Raises StorageError when there is none of that name."""
    try:
        store.remove_tag(_checked(tag))
    except FileNotFoundError as error:
        known = ", ".join(store.read_tags()) or "none"
        raise StorageError(f"{store} has no tag {tag!r}; it has: {known}") from error


def tags(store: Store) -> dict[str, str]:
    """The artifact, `kind/key`, of every tag. Raises StorageError for a tag that is no text."""
    return {tag: _text(store, tag, content) for tag, content in store.read_tags().items()}


def require_artifacts(store: Store, names: Container[str]) -> None:
    """Raise StorageError for a tag that points to none of the artifacts `names`.

    What it was meant to keep cannot be known: its file may be damaged, or its artifact's manifest.
    """
    for tag, artifact in tags(store).items():
        if artifact not in names:
            raise StorageError(
                f"the tag {tag!r} of {store} points to {artifact!r}, which is not there: give the "
                "tag again (`store tag`), or take it back (`store untag`)"
            )


def _text(store: Store, tag: str, content: bytes) -> str:
    try:
        return content.decode().strip()
    except UnicodeDecodeError as error:
        raise StorageError(
            f"the tag {tag!r} of {store} is damaged: give it again (`store tag`), or take it back "
            "(`store untag`)"
        ) from error


def _checked(tag: str) -> str:
    if not _NAME.fullmatch(tag):
        raise StorageError(f"{tag!r} cannot be a tag: use letters, digits, dots, dashes and underscores")
    return tag
