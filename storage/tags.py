"""Tags: names that a person gives to artifacts, which garbage collection then leaves alone."""

from __future__ import annotations

import re

from storage.artifacts import LocalStore
from storage.errors import StorageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def set_tag(store: LocalStore, tag: str, artifact: str) -> None:
    """Let `tag` mean the artifact `kind/key` from now on. Raises StorageError for a bad name."""
    store.write_tag(_checked(tag), artifact)


def remove_tag(store: LocalStore, tag: str) -> None:
    """Forget a tag, not its artifact. Raises StorageError when there is none of that name."""
    try:
        store.remove_tag(_checked(tag))
    except FileNotFoundError as error:
        known = ", ".join(tags(store)) or "none"
        raise StorageError(f"{store} has no tag {tag!r}; it has: {known}") from error


def tags(store: LocalStore) -> dict[str, str]:
    """The artifact, `kind/key`, of every tag."""
    return store.read_tags()


def _checked(tag: str) -> str:
    if not _NAME.fullmatch(tag):
        raise StorageError(f"{tag!r} cannot be a tag: use letters, digits, dots, dashes and underscores")
    return tag
