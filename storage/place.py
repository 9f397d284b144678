"""The layout of a store on a local file system.

<root>/<kind>/<key>/manifest.json + files     artifacts
<root>/.work/<kind>/<key>/                    work areas: unfinished work, to be resumed
<root>/.locks/<kind>/<key>                    kernel locks of processes that write
<root>/.trust/<kind>/<key>.json               the stat of every file at its last verification
<root>/.damaged/<kind>-<key>-<n>/             artifacts that failed verification
<root>/.replaced/<kind>-<key>/                artifacts that are being replaced
<root>/.removed/                              folders that are being deleted
<root>/.tags/<tag>                            the artifact that has this tag
<root>/.listing/<kind>                        an index of manifests; see `storage.manifest_index`
<root>/.recent/<kind>                         the newest artifacts; see `storage.recent`
<root>/.shards/<sha256>                       shards of features that are read from object storage
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from storage import durable
from storage.errors import StorageError
from storage.folders import visible_names
from storage.locks import exclusive, exclusive_now, is_held, shared_now


class Place:
    """The folders, files and locks under one local root folder."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path_of(self, kind: str, key: str) -> Path:
        """The folder of an artifact. Raises StorageError unless `kind` and `key` are plain names."""
        return self.root.joinpath(checked_name(kind), checked_name(key))

    def work_path_of(self, kind: str, key: str) -> Path:
        return self.root / ".work" / checked_name(kind) / checked_name(key)

    @property
    def removed_path(self) -> Path:
        """Where artifacts wait for deletion; everything here can be deleted."""
        return self.root / ".removed"

    @property
    def leftover_paths(self) -> tuple[Path, ...]:
        """Folders with content that nothing uses: set aside, or half deleted."""
        return self.root / ".damaged", self.removed_path

    def replaced(self) -> Iterator[tuple[str, str, Path]]:
        """(kind, key, folder) of artifacts that are being replaced, or were and are not deleted yet."""
        for name in sorted(visible_names(self.root / ".replaced")):
            kind, _, key = name.rpartition("-")
            if kind and key:
                yield kind, key, self.root / ".replaced" / name

    def locked(self) -> set[str]:
        """`kind/key` of artifacts that may have a `holder`: the others have no lock file."""
        locks = self.root / ".locks"
        return {f"{kind}/{name}" for kind in visible_names(locks) for name in durable.names_in(locks / kind)}

    def strays(self) -> list[Path]:
        """Small files that dead processes left: locks without a holder, and unfinished files."""
        locks = [
            *(self.root / ".locks").rglob("*"),
            *self.root.glob(".*.lock"),
            *self.shards_path.glob(".lock"),
        ]
        free = [path for path in locks if path.is_file() and is_held(path) is None]
        folders = [self.root, self.tags_path, self.shards_path]
        folders += [self.root / name for name in (".runs", ".listing", ".recent", ".cache")]
        for above in (".trust", ".cache", ".studies"):
            folders += (self.root / above).glob("*")
        unfinished = [path for folder in folders for path in durable.abandoned(folder) if path.is_file()]
        return sorted([*free, *unfinished, *self._older_strays()])

    def remove_stray(self, path: Path) -> None:
        """Delete one of `strays`, unless it is a lock that a process has taken since."""
        if path.is_relative_to(self.root / ".locks") or path.name.endswith(".lock"):
            with exclusive_now(path):  # releasing a lock removes its file
                return
        path.unlink(missing_ok=True)

    def _older_strays(self) -> Iterator[Path]:
        """Unfinished files as earlier versions named them."""
        yield from self.tags_path.glob(".*.tmp")
        for kind in visible_names(self.root / ".trust"):
            folder = self.root / ".trust" / kind
            for path in (folder / name for name in durable.names_in(folder) if name.endswith(".tmp")):
                if not durable.is_running(path.suffixes[-2].strip(".") if path.suffixes[1:] else ""):
                    yield path

    @property
    def shards_path(self) -> Path:
        """Shards of features on object storage by their SHA-256; may be deleted while nothing is running."""
        return self.root / ".shards"

    @property
    def tags_path(self) -> Path:
        return self.root / ".tags"

    def log_path_of(self, kind: str, key: str) -> Path:
        return self.root / ".logs" / checked_name(kind) / f"{checked_name(key)}.log"

    def work_areas(self) -> Iterator[tuple[str, str]]:
        """(kind, key) of every unfinished work area."""
        for kind in sorted(visible_names(self.root / ".work")):
            for key in sorted(visible_names(self.root / ".work" / kind)):
                yield kind, key

    def holder(self, kind: str, key: str) -> int | None:
        """The process that is building this artifact, if any."""
        return is_held(self.lock_path(kind, key))

    def making(self, kind: str, key: str) -> AbstractContextManager[None]:
        """The lock for building, replacing or moving an artifact; a second process waits."""
        return exclusive(self.lock_path(kind, key), what=f"{kind}/{key}")

    def making_now(self, kind: str, key: str) -> AbstractContextManager[bool]:
        """The same lock without waiting: False if another process holds it."""
        return exclusive_now(self.lock_path(kind, key))

    def reading_now(self, kind: str, key: str) -> AbstractContextManager[bool]:
        """Keep an artifact from being moved, replaced or deleted while it is read; others may read it, too.

        Does not wait: False if a process is moving or building it.
        """
        return shared_now(self.lock_path(kind, key))

    def changing_tag(self, tag: str) -> AbstractContextManager[None]:
        """The lock for writing or removing a tag; a second process waits."""
        return exclusive(self.lock_path("tags", tag), what=f"the tag {tag}")

    def hide(self, folder: Path) -> Path:
        """Move a folder of the store to where it waits for deletion; the caller holds its key's lock.

        On return the move is durable, so that no power cut brings back a folder that lacks files.
        Raises FileNotFoundError if it is missing.
        """
        away = self.removed_path / f"{folder.parent.name}-{folder.name}-{secrets.token_hex(8)}"
        try:
            folder.rename(away)
        except FileNotFoundError:
            durable.make_folder(away.parent)
            folder.rename(away)
        durable.flush(folder.parent)
        return away

    def lock_path(self, kind: str, key: str) -> Path:
        return self.root.joinpath(".locks", checked_name(kind), checked_name(key))

    def replaced_path(self, kind: str, key: str) -> Path:
        return self.root / ".replaced" / f"{checked_name(kind)}-{checked_name(key)}"


def checked_name(name: str) -> str:
    """Check that a kind or key is safe to join to the root, since listings and tags may come from others."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise StorageError(f"{name!r} cannot be the kind or the key of an artifact")
    return name
