"""Where everything of a store lies on a local file system.

<root>/<kind>/<key>/manifest.json + files     artifacts
<root>/.work/<kind>/<key>/                    work areas: what a resume finds
<root>/.locks/<kind>/<key>                    kernel locks of running writers
<root>/.trust/<kind>/<key>.json               the stat of every file at its last verification
<root>/.damaged/<kind>-<key>-<n>/             what failed verification, set aside
<root>/.replaced/<kind>-<key>/                what is being replaced, until its successor is in place
<root>/.removed/                              what is being deleted
<root>/.tags/<tag>                            the artifact that a person gave a name
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from storage import durable
from storage.errors import StorageError
from storage.folders import visible_names
from storage.locks import exclusive, exclusive_now, is_held


class Place:
    """The folders, files and locks under one root folder of this machine, by the names of what they hold."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path_of(self, kind: str, key: str) -> Path:
        """Where an artifact lies. Raises StorageError when `kind` or `key` is not one plain name."""
        return self.root.joinpath(plain_name(kind), plain_name(key))

    def work_path_of(self, kind: str, key: str) -> Path:
        return self.root / ".work" / plain_name(kind) / plain_name(key)

    @property
    def removed_path(self) -> Path:
        """Where artifacts wait for their deletion; what is found here can be deleted."""
        return self.root / ".removed"

    @property
    def leftover_paths(self) -> tuple[Path, ...]:
        """Folders whose content is nobody's: set aside, or half deleted."""
        return self.root / ".damaged", self.removed_path

    def replaced(self) -> Iterator[tuple[str, str, Path]]:
        """(kind, key, folder) of what was replaced and is not deleted yet, or waits for its successor."""
        for name in sorted(visible_names(self.root / ".replaced")):
            kind, _, key = name.rpartition("-")
            if kind and key:
                yield kind, key, self.root / ".replaced" / name

    def strays(self) -> list[Path]:
        """Small files of processes that died at a bad moment: locks without a holder, unfinished files."""
        locks = [
            path for path in (self.root / ".locks").rglob("*") if path.is_file() and is_held(path) is None
        ]
        folders = [self.tags_path, self.root / ".runs", *(self.root / ".trust").glob("*")]
        unfinished = [path for folder in folders for path in durable.abandoned(folder)]
        return sorted([*locks, *unfinished, *self._strays_of_old()])

    def remove_stray(self, path: Path) -> None:
        """Delete one of `strays`, but for a lock that a process has taken since."""
        if path.is_relative_to(self.root / ".locks"):
            with exclusive_now(path):  # whoever releases a lock removes its file
                return
        path.unlink(missing_ok=True)

    def _strays_of_old(self) -> Iterator[Path]:
        """What earlier versions called their unfinished files."""
        yield from self.tags_path.glob(".*.tmp")
        for path in (self.root / ".trust").glob("*/*.tmp"):
            if not Path("/proc", path.suffixes[-2].strip(".") if path.suffixes[1:] else "-").exists():
                yield path

    @property
    def tags_path(self) -> Path:
        return self.root / ".tags"

    def log_path_of(self, kind: str, key: str) -> Path:
        return self.root / ".logs" / plain_name(kind) / f"{plain_name(key)}.log"

    def work_areas(self) -> Iterator[tuple[str, str]]:
        """(kind, key) of every unfinished work area."""
        for kind in sorted(visible_names(self.root / ".work")):
            for key in sorted(visible_names(self.root / ".work" / kind)):
                yield kind, key

    def holder(self, kind: str, key: str) -> int | None:
        """The process that is making this artifact now, if any."""
        return is_held(self.lock_path(kind, key))

    def making(self, kind: str, key: str) -> AbstractContextManager[None]:
        """The lock of whoever makes, replaces or moves an artifact; a second process waits."""
        return exclusive(self.lock_path(kind, key), what=f"{kind}/{key}")

    def making_now(self, kind: str, key: str) -> AbstractContextManager[bool]:
        """The same lock without waiting for it: False when another process holds it."""
        return exclusive_now(self.lock_path(kind, key))

    def hide(self, folder: Path) -> Path:
        """Move a folder of the store to where it waits for its deletion; the caller holds its key's lock.

        On return it has moved for good, so that no power cut brings it back without some of its files.
        Raises FileNotFoundError when it is missing.
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
        return self.root.joinpath(".locks", plain_name(kind), plain_name(key))

    def replaced_path(self, kind: str, key: str) -> Path:
        return self.root / ".replaced" / f"{plain_name(kind)}-{plain_name(key)}"


def plain_name(name: str) -> str:
    """A kind or a key as it may be joined to the root: listings and tags come from other people, too."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise StorageError(f"{name!r} cannot be the kind or the key of an artifact")
    return name
