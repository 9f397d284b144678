"""Tags: names that a person gives to artifacts, which garbage collection then leaves alone."""

from __future__ import annotations

import re
from collections.abc import Container

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
        known = ", ".join(store.read_tags()) or "none"
        raise StorageError(f"{store} has no tag {tag!r}; it has: {known}") from error


def tags(store: LocalStore) -> dict[str, str]:
    """The artifact, `kind/key`, of every tag. Raises StorageError for a tag that is no text."""
    return {tag: _text(store, tag, content) for tag, content in store.read_tags().items()}


def require_artifacts(store: LocalStore, names: Container[str]) -> None:
    """Raise StorageError for a tag that means none of the artifacts `names`.

    What it was meant to keep cannot be known: its file may be damaged, or its artifact's manifest.
    """
    for tag, artifact in tags(store).items():
        if artifact not in names:
            raise StorageError(
                f"the tag {tag!r} of {store} means {artifact!r}, and there is no such artifact: give the tag "
                "anew (`store tag`), or take it back (`store untag`)"
            )


def _text(store: LocalStore, tag: str, content: bytes) -> str:
    try:
        return content.decode().strip()
    except UnicodeDecodeError as error:
        raise StorageError(
            f"the tag {tag!r} of {store} is damaged: give it anew (`store tag`), or take it back "
            "(`store untag`)"
        ) from error


def _checked(tag: str) -> str:
    if not _NAME.fullmatch(tag):
        raise StorageError(f"{tag!r} cannot be a tag: use letters, digits, dots, dashes and underscores")
    return tag
