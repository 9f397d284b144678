"""Tags: names that a person gives to artifacts, which garbage collection then leaves alone."""

from __future__ import annotations

import re

from storage.artifacts import LocalStore
from storage.errors import StorageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def set_tag(store: LocalStore, tag: str, artifact: str) -> None:
    """Let `tag` mean the artifact `kind/key` from now on. Raises StorageError for a bad name."""
    path = store.tags_path / _checked(tag)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(artifact + "\n")
    temporary.replace(path)


def remove_tag(store: LocalStore, tag: str) -> None:
    """Forget a tag, not its artifact. Raises StorageError when there is none of that name."""
    try:
        (store.tags_path / _checked(tag)).unlink()
    except FileNotFoundError as error:
        known = ", ".join(tags(store)) or "none"
        raise StorageError(f"{store} has no tag {tag!r}; it has: {known}") from error


def tags(store: LocalStore) -> dict[str, str]:
    """The artifact, `kind/key`, of every tag."""
    if not store.tags_path.is_dir():
        return {}
    files = sorted(path for path in store.tags_path.iterdir() if not path.name.startswith("."))
    return {path.name: path.read_text().strip() for path in files}


def _checked(tag: str) -> str:
    if not _NAME.fullmatch(tag):
        raise StorageError(f"{tag!r} cannot be a tag: use letters, digits, dots, dashes and underscores")
    return tag
