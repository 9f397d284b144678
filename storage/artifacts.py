"""The artifact store on a local file system: immutable directories that appear whole or not at all.

<root>/<kind>/<key>/manifest.json + files     artifacts
<root>/.work/<kind>/<key>/                    work areas: what a resume finds
<root>/.locks/<kind>/<key>                    kernel locks of running writers
<root>/.trust/<kind>/<key>.json               the stat of every file at its last verification
<root>/.damaged/<kind>-<key>-<n>/             what failed verification, set aside
<root>/.removed/                              what is being deleted
<root>/.tags/<tag>                            the artifact that a person gave a name
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.digests import digest_file
from storage.errors import StorageError
from storage.locks import exclusive, is_held
from storage.manifest import FILE_NAME, FileEntry, Identity, Manifest, read_manifest

log = logging.getLogger(__name__)

_TEMPORARY = "manifest.tmp"
_STRANGER = "its manifest is that of another artifact"


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


@dataclass
class WorkArea:
    """Where one artifact is made, under its lock. Without `commit` everything stays for a resume."""

    store: LocalStore
    identity: Identity
    path: Path
    made: Artifact | None = None
    again: bool = False
    started: float = field(default_factory=time.monotonic)

    def commit(
        self,
        content_digest: str,
        *,
        metrics: Mapping[str, Any] | None = None,
        sources: Mapping[str, str] | None = None,
        made_by: Mapping[str, Any] | None = None,
        scratch: Iterable[str] = (),
    ) -> Artifact:
        """Flush every file, write the manifest, and make the artifact visible by one rename.

        `scratch` names files and folders of the work area, relative to it, that only a resume needs: they are
        no part of the artifact, and are removed when it is there. A kill before that costs disk, not work.
        """
        files = {}
        aside = [self.path / name for name in scratch]
        for path in _files_under(self.path):
            if any(path.is_relative_to(each) for each in aside):
                continue
            entry = FileEntry(size=path.stat().st_size, sha256=digest_file(path))
            files[path.relative_to(self.path).as_posix()] = entry
        manifest = Manifest(
            identity=self.identity,
            key=self.identity.key,
            content_digest=content_digest,
            files=files,
            metrics=dict(metrics or {}),
            sources=dict(sources or {}),
            made_by=dict(made_by or {}),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self.started, 3),
            peak_memory_bytes=_peak_memory_bytes(),
        )
        self.made = self.store.publish(self.path, manifest, replace=self.again)
        _remove_from(self.made.path, scratch)
        return self.made


class LocalStore:
    """Artifacts under one root directory; see the module's docstring for the layout."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def __str__(self) -> str:
        return str(self.root)

    def exists(self) -> bool:
        """Whether anything was ever kept here."""
        return self.root.is_dir()

    def path_of(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def work_path_of(self, kind: str, key: str) -> Path:
        return self.root / ".work" / kind / key

    @property
    def removed_path(self) -> Path:
        """Where artifacts wait for their deletion; what is found here can be deleted."""
        return self.root / ".removed"

    @property
    def leftover_paths(self) -> tuple[Path, ...]:
        """Folders whose content is nobody's: set aside, replaced, or half deleted."""
        return self.root / ".damaged", self.root / ".replaced", self.removed_path

    @property
    def tags_path(self) -> Path:
        """Where tags lie; see `storage.tags`."""
        return self.root / ".tags"

    def log_path_of(self, kind: str, key: str) -> Path:
        return self.root / ".logs" / kind / f"{key}.log"

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact, when it exists and can be trusted; what is damaged is set aside and named in the log.

        A file whose stat equals that of its last verification is trusted; any other is digested again.
        """
        path = self.path_of(kind, key)
        try:
            manifest = read_manifest(path / FILE_NAME)
        except FileNotFoundError:
            if path.is_dir():
                self.set_aside(kind, key, "it has no manifest")
            return None
        except StorageError as error:
            self.set_aside(kind, key, str(error))
            return None
        problems = (
            self._check(path, manifest, trust_stat=True)
            if (manifest.kind, manifest.key) == (kind, key)
            else [_STRANGER]
        )
        if problems:
            self.set_aside(kind, key, "; ".join(problems))
            return None
        return Artifact(path, manifest)

    def peek(self, kind: str, key: str) -> Artifact | None:
        """As `find`, but by the manifest alone: no file is looked at, nothing is moved. For listings."""
        path = self.path_of(kind, key)
        try:
            return Artifact(path, read_manifest(path / FILE_NAME))
        except (FileNotFoundError, StorageError):
            return None

    def local_path(self, kind: str, key: str) -> Path:
        """Where an artifact's files can be read on this machine, damaged ones, too."""
        return self.path_of(kind, key)

    def keys(self, kind: str | None = None) -> Iterator[tuple[str, str]]:
        """(kind, key) of every finished artifact, in order."""
        kinds = [kind] if kind else sorted(_visible_names(self.root))
        for each in kinds:
            for key in sorted(_visible_names(self.root / each)):
                if (self.root / each / key / FILE_NAME).is_file():
                    yield each, key

    def manifests(self, kind: str | None = None) -> Iterator[bytes]:
        """The manifest of every finished artifact as it is stored, unchecked; for listings."""
        for each, key in self.keys(kind):
            with contextlib.suppress(FileNotFoundError):
                yield (self.path_of(each, key) / FILE_NAME).read_bytes()

    @contextmanager
    def making(self, identity: Identity, *, again: bool = False) -> Iterator[WorkArea]:
        """A work area for the artifact, under its lock; a second process waits, then finds `made` set.

        The lock belongs to this process: call it from the process that writes. With `again` an artifact that
        exists is made once more, and replaced only when its successor is whole.
        """
        kind, key = identity.kind, identity.key
        with exclusive(self._lock_path(kind, key), what=f"{kind}/{key}"):
            path = self.work_path_of(kind, key)
            made = None if again else self.find(kind, key)
            if made is None:
                path.mkdir(parents=True, exist_ok=True)
                _drop_manifest(path)
            yield WorkArea(self, identity, path, made, again)

    def holder(self, kind: str, key: str) -> int | None:
        """The process that is making this artifact now, if any."""
        return is_held(self._lock_path(kind, key))

    def work_areas(self) -> Iterator[tuple[str, str]]:
        """(kind, key) of every unfinished work area."""
        for kind in sorted(_visible_names(self.root / ".work")):
            for key in sorted(_visible_names(self.root / ".work" / kind)):
                yield kind, key

    def verify(self, kind: str, key: str) -> list[str]:
        """Digest every file of an artifact and say what does not hold; nothing is moved."""
        path = self.path_of(kind, key)
        try:
            manifest = read_manifest(path / FILE_NAME)
        except FileNotFoundError:
            return [f"{path}: no such artifact"]
        except StorageError as error:
            return [str(error)]
        return (
            self._check(path, manifest, trust_stat=False)
            if (manifest.kind, manifest.key) == (kind, key)
            else [_STRANGER]
        )

    def set_aside(self, kind: str, key: str, why: str) -> Path:
        """Move an artifact out of sight, to be looked at by a person; whoever needs it makes it again."""
        target = _free_path(self.root / ".damaged", kind, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        log.warning("artifact %s/%s is set aside as %s: %s", kind, key, target, why)
        self.path_of(kind, key).rename(target)
        self._trust_path(kind, key).unlink(missing_ok=True)
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
        self._trust_path(kind, key).unlink(missing_ok=True)
        return work

    def remove(self, kind: str, key: str) -> None:
        """Delete an artifact, out of sight by one rename first: an interrupted removal leaves no part.

        Raises FileNotFoundError when there is none.
        """
        away = _free_path(self.removed_path, kind, key)
        away.parent.mkdir(parents=True, exist_ok=True)
        self.path_of(kind, key).rename(away)
        self._trust_path(kind, key).unlink(missing_ok=True)
        shutil.rmtree(away)

    def publish(self, work: Path, manifest: Manifest, *, replace: bool = False) -> Artifact:
        """Make a work area an artifact: files and manifest flushed to the disk, then one rename.

        The caller holds the lock of `making`, and the files in `work` are those of the manifest. `replace`
        says that the key may have an artifact, which makes a difference where no lock reaches all writers.
        """
        for name in manifest.files:
            _flush(work / name)
        _write_flushed(work / FILE_NAME, manifest.to_json())
        for directory in {path.parent for path in _files_under(work)} | {work}:
            _flush(directory)
        target = self.path_of(manifest.kind, manifest.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        replaced = self._move_away(target)
        work.rename(target)
        _flush(target.parent)
        self._write_trust(target, manifest)
        if replaced is not None:
            shutil.rmtree(replaced)
        return Artifact(target, manifest)

    def _move_away(self, target: Path) -> Path | None:
        """Where an artifact that is being replaced waits until its successor is in place."""
        if not target.exists():
            return None
        away = self.root / ".replaced" / f"{target.parent.name}-{target.name}"
        if away.exists():
            shutil.rmtree(away)
        away.parent.mkdir(parents=True, exist_ok=True)
        target.rename(away)
        return away

    def _check(self, path: Path, manifest: Manifest, *, trust_stat: bool) -> list[str]:
        trusted = self._read_trust(manifest) if trust_stat else {}
        problems, unknown = [], False
        for name, entry in manifest.files.items():
            try:
                stat = (path / name).stat()
            except FileNotFoundError:
                problems.append(f"{name} is missing")
                continue
            if trusted.get(name) == _stat_key(stat):
                continue
            unknown = True
            if stat.st_size != entry.size:
                problems.append(f"{name} has {stat.st_size} bytes, not {entry.size}")
            elif digest_file(path / name) != entry.sha256:
                problems.append(f"{name} does not hold to its digest")
        if unknown and not problems:
            self._write_trust(path, manifest)
        return problems

    def _read_trust(self, manifest: Manifest) -> dict[str, list[int]]:
        try:
            trust = json.loads(self._trust_path(manifest.kind, manifest.key).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return trust if isinstance(trust, dict) else {}

    def _write_trust(self, path: Path, manifest: Manifest) -> None:
        """Remember the stat of verified files; in a read-only store they are verified again next time."""
        trust = {name: _stat_key((path / name).stat()) for name in manifest.files}
        target = self._trust_path(manifest.kind, manifest.key)
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(trust))
            temporary.replace(target)
        except OSError as error:
            log.info("the verification of %s is not remembered: %s", path, error)

    def _trust_path(self, kind: str, key: str) -> Path:
        return self.root / ".trust" / kind / f"{key}.json"

    def _lock_path(self, kind: str, key: str) -> Path:
        return self.root / ".locks" / kind / key


def _stat_key(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _free_path(folder: Path, kind: str, key: str) -> Path:
    number = 0
    while (path := folder / f"{kind}-{key}-{number}").exists():
        number += 1
    return path


def _visible_names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except FileNotFoundError:
        return


def _drop_manifest(work: Path) -> None:
    """A try that was killed in its commit left its manifest, which must not become a part of the next."""
    for name in (FILE_NAME, _TEMPORARY):
        (work / name).unlink(missing_ok=True)


def _files_under(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _remove_from(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_flushed(path: Path, text: str) -> None:
    temporary = path.with_name(_TEMPORARY)
    temporary.write_text(text)
    _flush(temporary)
    temporary.replace(path)


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
