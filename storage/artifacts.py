"""The artifact store on a local file system: immutable directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from storage.errors import StorageError
from storage.folders import flush, remove_tree
from storage.layout import Layout
from storage.locks import exclusive, exclusive_now, is_held, lock_series
from storage.manifest import FILE_NAME, Identity, Manifest, read_manifest
from storage.trust import Trust, in_short, stat_keys
from storage.work_area import WorkArea

log = logging.getLogger(__name__)

MakingNow = Callable[[str, str], AbstractContextManager[bool]]
"""As `LocalStore.making_now`: kind, key."""

_TEMPORARY = "manifest.tmp"
_STRANGER = "its manifest is that of another artifact"
_HALF_REPLACED = "it is out of sight while it is replaced"
_LOOKS = 50
_PAUSE_SECONDS = 0.01


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its directory and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def key(self) -> str:
        return self.manifest.key

    @property
    def content_digest(self) -> str:
        return self.manifest.content_digest


@dataclass(frozen=True)
class Inspection:
    """What a look at a key finds: its artifact, or what is wrong with it, or (both None) nothing."""

    artifact: Artifact | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Objects:
    """Objects below one name of object storage that no manifest names; size in bytes."""

    name: str
    size: int


class LocalStore(Layout):
    """Artifacts under one root directory; see `storage.layout` for what lies where."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._trust = Trust(self.root / ".trust")

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact, when it exists and can be trusted; what is damaged is set aside and named in the log.

        A file whose stat equals that of its last verification is trusted; any other is digested again.
        Nothing is set aside that a process is making again now: it is not there, until that process ends.
        """
        stamp, found = self._inspect(kind, key)
        if found.problem is None:
            return found.artifact
        with exclusive_now(self._lock_path(kind, key)) as alone:
            if alone:
                return self._find_alone(kind, key, found if self._stamp(kind, key) == stamp else None)
        log.warning("artifact %s/%s is being made again; what is there: %s", kind, key, found.problem)
        return None

    def inspect(self, kind: str, key: str) -> Inspection:
        """As `find`, but what is damaged stays where it is, and is said."""
        return self._inspect(kind, key)[1]

    def _inspect(self, kind: str, key: str) -> tuple[object, Inspection]:
        """Look until what is wrong is no writer's doing, which takes a moment between two renames.

        Returns the stamp from before the look, too.
        """
        stamp, found = self._stamp(kind, key), self._look(kind, key)
        for _ in range(_LOOKS):
            if found.problem is None:
                break
            held = self.holder(kind, key) is not None
            now = self._stamp(kind, key)
            if now != stamp:
                stamp, found = now, self._look(kind, key)
            elif not held:
                break
            else:
                time.sleep(_PAUSE_SECONDS)
        return stamp, found

    def _stamp(self, kind: str, key: str) -> object:
        """Another one when a process has moved the artifact or put another in its place."""
        path = self.path_of(kind, key)
        with contextlib.suppress(FileNotFoundError):
            inode = path.stat().st_ino
            try:
                return inode, (path / FILE_NAME).read_bytes()
            except FileNotFoundError:
                return inode, None
        return None

    def _find_alone(self, kind: str, key: str, seen: Inspection | None = None) -> Artifact | None:
        """As `find`, for the holder of the key's lock: what it looks at, nobody else moves.

        `seen` is what an earlier look found, if that still holds.
        """
        found = seen or self._look(kind, key)
        if found.problem == _HALF_REPLACED:
            self._replaced_path(kind, key).rename(self.path_of(kind, key))
            found = self._look(kind, key)
        if found.problem is not None:
            with contextlib.suppress(FileNotFoundError):
                self._move_aside(kind, key, found.problem)
        return found.artifact

    def _look(self, kind: str, key: str) -> Inspection:
        path = self.path_of(kind, key)
        try:
            manifest = read_manifest(path / FILE_NAME)
        except FileNotFoundError:
            if path.is_dir():
                return Inspection(problem="it has no manifest")
            return Inspection(problem=_HALF_REPLACED if self._replaced_path(kind, key).is_dir() else None)
        except StorageError as error:
            return Inspection(problem=str(error))
        if (manifest.kind, manifest.key) != (kind, key):
            return Inspection(problem=_STRANGER)
        problems = self._trust.problems(path, manifest, trust_stat=True)
        return Inspection(problem=in_short(problems)) if problems else Inspection(Artifact(path, manifest))

    def peek(self, kind: str, key: str) -> Artifact | None:
        """As `find`, but by the manifest alone: no file is looked at, nothing is moved. For listings."""
        try:
            return Artifact(self.path_of(kind, key), self.manifest_of(kind, key))
        except (FileNotFoundError, StorageError):
            return None

    def manifest_of(self, kind: str, key: str) -> Manifest:
        """The manifest alone. Raises FileNotFoundError when there is none, StorageError for a damaged one."""
        return read_manifest(self.path_of(kind, key) / FILE_NAME)

    def local_path(self, kind: str, key: str) -> Path:
        """Where an artifact's files can be read on this machine, damaged ones, too."""
        return self.path_of(kind, key)

    def stray_objects(self, before: datetime) -> list[Objects]:
        """What no manifest names and nobody has touched since a moment; in folders there is no such thing."""
        return []

    def remove_objects(self, objects: Objects, before: datetime) -> None:
        raise StorageError(f"{self} has no objects without a manifest")

    @contextmanager
    def making(self, identity: Identity, *, again: bool = False) -> Iterator[WorkArea]:
        """A work area for the artifact, under its lock; a second process waits, then finds `made` set.

        The lock belongs to this process: call it from the process that writes. With `again` an artifact that
        exists is made once more, and replaced only when its successor is whole.
        """
        kind, key = identity.kind, identity.key
        with exclusive(self._lock_path(kind, key), what=f"{kind}/{key}"):
            path = self.work_path_of(kind, key)
            made = None if again else self._find_alone(kind, key)
            if made is None:
                path.mkdir(parents=True, exist_ok=True)
                _drop_manifest(path)
            yield WorkArea(self, identity, path, made, again)

    def making_now(self, kind: str, key: str) -> AbstractContextManager[bool]:
        """The lock of `making` without waiting for it: False when another process holds it."""
        return exclusive_now(self._lock_path(kind, key))

    @contextmanager
    def collecting(self) -> Iterator[MakingNow]:
        """A quicker `making_now`, for who takes a great many of these locks, each for a moment."""
        with lock_series(self.root / ".locks" / "collecting") as series:
            yield lambda kind, key: series.exclusive_now(self._lock_path(kind, key))

    def holder(self, kind: str, key: str) -> int | None:
        """The process that is making this artifact now, if any."""
        return is_held(self._lock_path(kind, key))

    def verify(self, kind: str, key: str) -> list[str]:
        """Digest every file of an artifact and say what does not hold; nothing is moved.

        What does not hold is not trusted any more, whatever its stat says: the next `find` digests it, too.
        """
        path = self.path_of(kind, key)
        try:
            manifest = read_manifest(path / FILE_NAME)
        except FileNotFoundError:
            return [f"{path}: no such artifact"]
        except StorageError as error:
            return [str(error)]
        if (manifest.kind, manifest.key) != (kind, key):
            return [_STRANGER]
        problems = self._trust.problems(path, manifest, trust_stat=False)
        if problems:
            self.distrust(kind, key)
        return problems

    def distrust(self, kind: str, key: str) -> None:
        """Have every file of an artifact digested again when it is next asked for."""
        self._trust.forget(kind, key)

    def set_aside(self, kind: str, key: str, why: str) -> Path:
        """Move an artifact out of sight, to be looked at by a person; whoever needs it makes it again.

        Raises FileNotFoundError when there is none. Waits for a process that is making it.
        """
        with exclusive(self._lock_path(kind, key), what=f"{kind}/{key}"):
            return self._move_aside(kind, key, why)

    def _move_aside(self, kind: str, key: str, why: str) -> Path:
        target = _free_path(self.root / ".damaged", kind, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path_of(kind, key).rename(target)
        log.warning("artifact %s/%s is set aside as %s: %s", kind, key, target, why)
        self._trust.forget(kind, key)
        return target

    def reopen(self, kind: str, key: str) -> Path:
        """Make an artifact a work area again, to be resumed by whoever makes it; returns the work area.

        Raises FileNotFoundError when there is none.
        """
        work = self.work_path_of(kind, key)
        with exclusive(self._lock_path(kind, key), what=f"{kind}/{key}"):
            if work.exists():
                shutil.rmtree(work)
            work.parent.mkdir(parents=True, exist_ok=True)
            self.path_of(kind, key).rename(work)
            _drop_manifest(work)
        self._trust.forget(kind, key)
        return work

    def remove(self, kind: str, key: str) -> None:
        """Delete an artifact; an interrupted removal leaves no part of it.

        Raises FileNotFoundError when there is none.
        """
        away = self.take_away(kind, key)
        if away is not None:
            remove_tree(away)

    def take_away(self, kind: str, key: str) -> Path | None:
        """The first half of `remove`: nobody sees the artifact any more, and its folder is to be deleted.

        Returns that folder, None where nothing is left. Raises FileNotFoundError when there is none.
        """
        away = self.hide(self.path_of(kind, key))
        self._trust.forget(kind, key)
        return away

    def hide(self, folder: Path) -> Path:
        """Move a folder of the store to where it waits for its deletion; the caller holds its key's lock.

        Raises FileNotFoundError when there is none.
        """
        away = self.removed_path / f"{folder.parent.name}-{folder.name}-{secrets.token_hex(8)}"
        try:
            return folder.rename(away)
        except FileNotFoundError:
            away.parent.mkdir(parents=True, exist_ok=True)
            return folder.rename(away)

    def publish(
        self,
        work: Path,
        manifest: Manifest,
        *,
        replace: bool = False,
        verified: Mapping[str, list[int]] | None = None,
    ) -> Artifact:
        """Make a work area an artifact: files and manifest flushed to the disk, then one rename.

        The caller holds the lock of `making`, and the files in `work` are those of the manifest. `replace`
        says that the key may have an artifact, which makes a difference where no lock reaches all writers.
        `verified` is the `stat_keys` of the files from before they were digested: what changes after that is
        digested again. Without it, that of now.
        """
        verified = verified or stat_keys(work, manifest)
        for name in manifest.files:
            flush(work / name)
        _write_flushed(work / FILE_NAME, manifest.to_json())
        for directory in (path for path in (*work.rglob("*"), work) if path.is_dir()):
            flush(directory)
        target = self.path_of(manifest.kind, manifest.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        replaced = self._move_away(target)
        work.rename(target)
        flush(target.parent)
        self._trust.remember(manifest.kind, manifest.key, verified)
        if replaced is not None:
            remove_tree(replaced)
        return Artifact(target, manifest)

    def _move_away(self, target: Path) -> Path | None:
        """Where an artifact that is being replaced waits until its successor is in place."""
        if not target.exists():
            return None
        away = self._replaced_path(target.parent.name, target.name)
        if away.exists():
            shutil.rmtree(away)
        away.parent.mkdir(parents=True, exist_ok=True)
        target.rename(away)
        return away


def _free_path(folder: Path, kind: str, key: str) -> Path:
    number = 0
    while (path := folder / f"{kind}-{key}-{number}").exists():
        number += 1
    return path


def _drop_manifest(work: Path) -> None:
    """A try that was killed in its commit left its manifest, which must not become a part of the next."""
    for name in (FILE_NAME, _TEMPORARY):
        (work / name).unlink(missing_ok=True)


def _write_flushed(path: Path, text: str) -> None:
    temporary = path.with_name(_TEMPORARY)
    temporary.write_text(text)
    flush(temporary)
    temporary.replace(path)
