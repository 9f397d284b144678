"""The artifact store on a local file system: immutable directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from storage import durable
from storage.durable import flush
from storage.folders import remove_tree, visible_names
from storage.manifest import FILE_NAME, Manifest, manifest_or_problem, read_manifest
from storage.place import Place, checked_name
from storage.reading import read_regular
from storage.receiving import OpenFile, Received, Twin, fill, relatives
from storage.recent import KEY, Recent
from storage.store import Artifact, FirstLooks, Inspection, Store
from storage.trust import Trust, in_short, stat_keys
from storage.work_area import RECEIVING, drop_manifest

log = logging.getLogger(__name__)

_NO_MANIFEST = f"{FILE_NAME} is missing"
_HALF_REPLACED = "it is being replaced"
_LOOKS = 50
_PAUSE_SECONDS = 0.01


class LocalStore(Store):
    """Artifacts under one root directory; see `storage.place` for the layout."""

    def __init__(self, root: Path, *, verify_first: bool = False) -> None:
        self.place = Place(root)
        self._trust = Trust(self.root / ".trust")
        self._looks = FirstLooks(verify_first)

    def __str__(self) -> str:
        return str(self.root)

    def exists(self) -> bool:
        return self.root.is_dir()

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact, if it exists and is intact; a damaged one is set aside and logged.

        A file is trusted if its stat is unchanged since it was verified; otherwise it is digested again.
        A damaged artifact that a process is building again is not set aside: it counts as missing until then.
        """
        stamp, found = self._inspect(kind, key)
        if found.problem is None:
            return found.artifact
        with self.place.making_now(kind, key) as alone:
            if alone:
                return self.find_alone(kind, key, found if self._stamp(kind, key) == stamp else None)
        log.warning(
            "artifact %s/%s is being built again; the present one is damaged: %s", kind, key, found.problem
        )
        return None

    def inspect(self, kind: str, key: str) -> Inspection:
        return self._inspect(kind, key)[1]

    def _inspect(self, kind: str, key: str) -> tuple[object, Inspection]:
        """Look again while a problem may come from a writer that is between two renames.

        Also returns the stamp from before the look.
        """
        stamp, found = self._stamp(kind, key), self._look(kind, key)
        for _ in range(_LOOKS):
            if found.problem is None:
                break
            held = self.place.holder(kind, key) is not None
            now = self._stamp(kind, key)
            if now != stamp:
                stamp, found = now, self._look(kind, key)
            elif not held:
                break
            else:
                time.sleep(_PAUSE_SECONDS)
        return stamp, found

    def _stamp(self, kind: str, key: str) -> object:
        """A value that changes when a process moves or replaces the artifact."""
        path = self.place.path_of(kind, key)
        with contextlib.suppress(FileNotFoundError):
            inode = path.stat().st_ino
            try:
                return inode, (path / FILE_NAME).read_bytes()
            except FileNotFoundError:
                return inode, None
        return None

    def find_alone(self, kind: str, key: str, seen: Inspection | None = None) -> Artifact | None:
        """Like `find`, for the holder of the key's lock: no other process moves the artifact meanwhile.

        `seen` is the result of an earlier look, if it is still valid.
        """
        found = seen or self._look(kind, key)
        if found.problem == _HALF_REPLACED:
            self.place.replaced_path(kind, key).rename(self.place.path_of(kind, key))
            found = self._look(kind, key)
        if found.problem is not None:
            with contextlib.suppress(FileNotFoundError):
                self._move_aside(kind, key, found.problem)
        return found.artifact

    def _look(self, kind: str, key: str) -> Inspection:
        path, manifest = self.place.path_of(kind, key), self._manifest(kind, key)
        if manifest is None and self.place.replaced_path(kind, key).is_dir():
            manifest = _HALF_REPLACED
        if not isinstance(manifest, Manifest):
            return Inspection(problem=manifest)
        trust_stat = not self._looks.must_verify(kind, key)
        problems = self._trust.problems(path, manifest, trust_stat=trust_stat)
        if problems and not trust_stat:
            self.distrust(kind, key)
        return Inspection(problem=in_short(problems)) if problems else Inspection(Artifact(path, manifest))

    def _manifest(self, kind: str, key: str) -> Manifest | str | None:
        """The manifest, or what is wrong with it; None without an artifact."""
        path = self.place.path_of(kind, key)
        try:
            raw = read_regular(path / FILE_NAME)
        except FileNotFoundError:
            return _NO_MANIFEST if path.is_dir() else None
        return manifest_or_problem(raw, str(path / FILE_NAME), kind, key)

    def manifest_of(self, kind: str, key: str) -> Manifest:
        return read_manifest(self.place.path_of(kind, key) / FILE_NAME)

    def without_manifest(self) -> Iterator[tuple[str, str]]:
        for kind in self.kinds():
            for key in sorted(visible_names(self.root / kind)):
                folder = self.root / kind / key
                if KEY.fullmatch(key) and folder.is_dir() and not (folder / FILE_NAME).exists():
                    yield kind, key

    def kinds(self) -> list[str]:
        return sorted(visible_names(self.root))

    def keys(self, kind: str | None = None) -> Iterator[tuple[str, str]]:
        for each in [checked_name(kind)] if kind else self.kinds():
            for key in sorted(visible_names(self.root / each)):
                if self.root.joinpath(each, key, FILE_NAME).is_file():
                    yield each, key

    def stamps(self, kind: str) -> Iterator[tuple[str, str]]:
        folder = str(self.kind_folder(kind))  # a Path for each of a million keys takes most of the time
        for key in durable.names_in(self.kind_folder(kind)):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                stat = os.stat(f"{folder}/{key}/{FILE_NAME}")  # noqa: PTH116 - see above
                if S_ISREG(stat.st_mode) and not key.startswith("."):
                    yield key, f"{stat.st_ino:x}.{stat.st_mtime_ns:x}.{stat.st_size:x}"

    def read_manifests(self, kind: str, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                yield key, self.root.joinpath(kind, key, FILE_NAME).read_bytes()

    def kind_folder(self, kind: str) -> Path:
        return self.root / checked_name(kind)

    def written_since(self, moment: datetime) -> set[str]:
        found = set()
        for kind, key in self.keys():
            with contextlib.suppress(FileNotFoundError):
                if (self.place.path_of(kind, key) / FILE_NAME).stat().st_mtime > moment.timestamp():
                    found.add(f"{kind}/{key}")
        return found

    def hidden_manifests(self) -> Iterator[bytes]:
        for folder in (self.root / ".replaced", *self.place.leftover_paths):
            for name in sorted(visible_names(folder)):
                with contextlib.suppress(FileNotFoundError):
                    yield (folder / name / FILE_NAME).read_bytes()

    def read_tags(self) -> dict[str, bytes]:
        try:
            files = sorted(path for path in self.place.tags_path.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return {}
        return {path.name: path.read_bytes() for path in files}

    def write_tag(self, tag: str, artifact: str) -> None:
        with self.place.changing_tag(tag):
            self._put_tag(tag, artifact)

    def swap_tag(self, tag: str, before: str | None, after: str | None) -> bool:
        with self.place.changing_tag(tag):
            content = self.read_tags().get(tag)
            if (None if content is None else content.strip()) != (before and before.encode()):
                return False
            if after is not None:
                self._put_tag(tag, after)
            elif before is not None:
                durable.remove(self.place.tags_path / tag)
            return True

    def _put_tag(self, tag: str, artifact: str) -> None:
        durable.make_folder(self.place.tags_path)
        durable.write(self.place.tags_path / tag, artifact + "\n")

    def remove_tag(self, tag: str) -> None:
        """Remove a tag. Raises FileNotFoundError if it does not exist."""
        with self.place.changing_tag(tag):
            durable.remove(self.place.tags_path / tag)

    def local_path(self, kind: str, key: str) -> Path:
        """Where this machine can read an artifact's files, even damaged ones."""
        return self.place.path_of(kind, key)

    def verify(self, kind: str, key: str) -> list[str]:
        """Digest every file of an artifact and return the problems; nothing is moved.

        If there are any, the next `find` digests the files again, even if their stat is unchanged.
        """
        path, manifest = self.place.path_of(kind, key), self._manifest(kind, key)
        if not isinstance(manifest, Manifest):
            return [manifest or f"{path}: artifact not found"]
        problems = self._trust.problems(path, manifest, trust_stat=False)
        if problems:
            self.distrust(kind, key)
        return problems

    def distrust(self, kind: str, key: str) -> None:
        """Make the next `find` digest every file of an artifact again."""
        self._trust.forget(kind, key)

    def trusted(self, artifact: Artifact) -> frozenset[str]:
        return self._trust.unchanged(artifact.path, artifact.manifest)

    def set_aside(self, kind: str, key: str, why: str) -> Path:
        """Move an artifact aside for inspection, so that it is built again when needed.

        Raises FileNotFoundError if it is missing. Waits for a process that is building it.
        """
        with self.place.making(kind, key):
            return self._move_aside(kind, key, why)

    def _move_aside(self, kind: str, key: str, why: str) -> Path:
        target = _free_path(self.root / ".damaged", kind, key)
        durable.make_folder(target.parent)
        self.place.path_of(kind, key).rename(target)
        log.warning("artifact %s/%s was set aside as %s: %s", kind, key, target, why)
        self._trust.forget(kind, key)
        return target

    def reopen(self, kind: str, key: str) -> Path:
        """Turn an artifact back into a work area that can be resumed, and return that.

        Raises FileNotFoundError if it is missing.
        """
        work = self.place.work_path_of(kind, key)
        with self.place.making(kind, key):
            if work.exists():
                shutil.rmtree(work)
            durable.make_folder(work.parent)
            path = self.place.path_of(kind, key)
            path.rename(work)
            # First the move: an artifact that is still in place without its manifest would be damaged.
            flush(work.parent)
            flush(path.parent)
            drop_manifest(work)
        self._trust.forget(kind, key)
        return work

    def take_away(self, kind: str, key: str) -> Path | None:
        """The first half of `remove`: move the artifact out of sight, and return the folder to delete.

        Raises FileNotFoundError if the artifact is missing.
        """
        away = self.place.hide(self.place.path_of(kind, key))
        self._trust.forget(kind, key)
        return away

    def publish(
        self,
        work: Path,
        manifest: Manifest,
        *,
        replace: bool = False,
        verified: Mapping[str, list[int]] | None = None,
    ) -> Artifact:
        """See `Store.publish`: flush files and manifest to disk, then rename once."""
        verified = verified or stat_keys(work, manifest)
        for name in manifest.files:  # and not what goes after the commit
            flush(work / name)
        durable.write(work / FILE_NAME, manifest.to_json())
        for directory in (path for path in (*work.rglob("*"), work) if path.is_dir()):
            flush(directory)
        target = self.place.path_of(manifest.kind, manifest.key)
        durable.make_folder(target.parent)
        replaced = self._move_away(target)
        work.rename(target)
        flush(target.parent)
        self._trust.remember(manifest.kind, manifest.key, verified)
        Recent(self.root, manifest.kind).add(manifest.key)
        if replaced is not None:
            remove_tree(replaced)
        return Artifact(target, manifest)

    def receive(self, manifest: Manifest, open_file: OpenFile) -> Received | None:
        kind, key = manifest.kind, manifest.key
        durable.make_folder(self.root)
        with self.place.making(kind, key):
            if self.find_alone(kind, key) is not None:
                return None
            area = self.place.work_path_of(kind, key)
            durable.make_folder(area / RECEIVING)
            received = fill(area / RECEIVING, manifest, open_file, self._twins(manifest))
            self.publish(area / RECEIVING, manifest)
            remove_tree(area)
            return received

    def open_file(self, manifest: Manifest, name: str) -> BinaryIO:
        return (self.place.path_of(manifest.kind, manifest.key) / name).open("rb")

    def _twins(self, manifest: Manifest) -> Iterator[Twin]:
        for other in relatives(self, manifest):
            folder = self.place.path_of(other.kind, other.key)
            trusted = self._trust.unchanged(folder, other)
            for name, entry in other.files.items():
                yield Twin(folder / name, entry, name in trusted)

    def _move_away(self, target: Path) -> Path | None:
        """Move an artifact that is being replaced out of the way, until the new one is in place."""
        if not target.exists():
            return None
        away = self.place.replaced_path(target.parent.name, target.name)
        if away.exists():
            shutil.rmtree(away)
        durable.make_folder(away.parent)
        target.rename(away)
        return away


def _free_path(folder: Path, kind: str, key: str) -> Path:
    number = 0
    while (path := folder / f"{kind}-{key}-{number}").exists():
        number += 1
    return path
