"""The interface of a store of artifacts: immutable folders that appear whole or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from storage import durable
from storage.errors import NewerVersionError, StorageError
from storage.folders import remove_tree
from storage.manifest import Identity, Manifest
from storage.place import Place
from storage.receiving import OpenFile, Received
from storage.recent import Recent
from storage.work_area import WorkArea, drop_leftovers


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
    def name(self) -> str:
        """The artifact as `kind/key`."""
        return self.manifest.name

    @property
    def content_digest(self) -> str:
        return self.manifest.content_digest


@dataclass(frozen=True)
class Inspection:
    """What a key has: its artifact, a problem with it, or nothing (both None)."""

    artifact: Artifact | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Objects:
    """Objects under one prefix of object storage that no manifest names; size in bytes."""

    name: str
    size: int


class FirstLooks:
    """Which artifacts a process has to verify before it uses them: with `verify_first`, each one once."""

    def __init__(self, verify_first: bool) -> None:
        self._verify_first = verify_first
        self._seen: set[tuple[str, str]] = set()

    def must_verify(self, kind: str, key: str) -> bool:
        """Whether this is the first look at an artifact; what is built after that has just been digested."""
        if not self._verify_first or (kind, key) in self._seen:
            return False
        self._seen.add((kind, key))
        return True


class Store(ABC):
    """Artifacts by kind and key. Opened by `storage.opening.open_store`.

    Methods that read a manifest raise NewerVersionError if a newer version wrote it.
    """

    place: Place
    """Where this machine keeps locks, work areas and logs; for a local store, everything."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is a store at this place."""

    @abstractmethod
    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact, on this machine, if it is intact; a damaged one is set aside and logged."""

    def find_in_place(self, kind: str, key: str) -> Artifact | None:
        """Like `find`, but nothing is downloaded: `place_of` says where the files can be read."""
        return self.find(kind, key)

    def place_of(self, artifact: Artifact) -> str:
        """The folder, or the URL, of an artifact's files."""
        return str(artifact.path)

    @abstractmethod
    def inspect(self, kind: str, key: str) -> Inspection:
        """Like `find`, but a damaged artifact stays where it is and is reported; nothing is downloaded.

        The artifact's path is where `find` would put it.
        """

    @abstractmethod
    def manifest_of(self, kind: str, key: str) -> Manifest:
        """Only the manifest. Raises FileNotFoundError if it is missing, StorageError if damaged."""

    @abstractmethod
    def keys(self, kind: str | None = None) -> Iterator[tuple[str, str]]:
        """(kind, key) of every finished artifact, in order; each is looked at when it is taken."""

    @abstractmethod
    def kinds(self) -> list[str]:
        """The kinds of which there may be artifacts, in order."""

    @abstractmethod
    def stamps(self, kind: str) -> Iterator[tuple[str, str]]:
        """The key of every finished artifact of a kind, with a text that changes when its manifest does.

        In any order; reads no manifest.
        """

    @abstractmethod
    def read_manifests(self, kind: str, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """(key, raw unchecked manifest) of those of the keys that have one."""

    @abstractmethod
    def kind_folder(self, kind: str) -> Path | None:
        """The local folder whose time says when an artifact of the kind came or went; None elsewhere."""

    @abstractmethod
    def hidden_manifests(self) -> Iterator[bytes]:
        """Raw manifests of artifacts that are being replaced or deleted, or were set aside."""

    @abstractmethod
    def local_path(self, kind: str, key: str) -> Path:
        """Where this machine can read an artifact's files."""

    @abstractmethod
    def verify(self, kind: str, key: str) -> list[str]:
        """Digest every file of an artifact and return the problems; nothing is moved."""

    @abstractmethod
    def distrust(self, kind: str, key: str) -> None:
        """Make the next `find` digest every file of an artifact again."""

    @abstractmethod
    def trusted(self, artifact: Artifact) -> frozenset[str]:
        """The files of an artifact on this machine that are unchanged since they were last verified."""

    @abstractmethod
    def written_since(self, moment: datetime) -> set[str]:
        """The artifacts, `kind/key`, stored after a moment, by the clock of the storage."""

    @abstractmethod
    def find_alone(self, kind: str, key: str) -> Artifact | None:
        """Like `find`, for the holder of the key's lock."""

    @abstractmethod
    def publish(
        self,
        work: Path,
        manifest: Manifest,
        *,
        replace: bool = False,
        verified: Mapping[str, list[int]] | None = None,
    ) -> Artifact:
        """Turn a work area into an artifact: first its files, then the manifest, all flushed to disk.

        The caller holds the lock of `making`, and `work` holds the files that the manifest names. `replace`
        says that the key may already have an artifact, which matters where locks do not reach all writers.
        `verified` is the `stat_keys` of the files before they were digested (default: now): files that change
        later are digested again.
        """

    @abstractmethod
    def receive(self, manifest: Manifest, open_file: OpenFile) -> Received | None:
        """Store an artifact that was made elsewhere, from its files, opened by name. None if it is there.

        Only files that the store has nowhere move, and what a try brought that was cut off does not move
        again. Raises StorageError when a file does not match its digest.
        """

    @abstractmethod
    def open_file(self, manifest: Manifest, name: str) -> BinaryIO:
        """A file of an artifact that is here, for reading. Raises FileNotFoundError if it is missing."""

    @abstractmethod
    def set_aside(self, kind: str, key: str, why: str) -> Path:
        """Move an artifact aside for inspection, so that it is built again when needed.

        Raises FileNotFoundError if it is missing. Waits for a process that is building it.
        """

    @abstractmethod
    def reopen(self, kind: str, key: str) -> Path:
        """Turn an artifact back into a work area that can be resumed, and return that.

        Raises FileNotFoundError if it is missing.
        """

    @abstractmethod
    def take_away(self, kind: str, key: str) -> Path | None:
        """The first half of `remove`: move the artifact out of sight, and return the folder to delete.

        Returns None if nothing is left to delete. Raises FileNotFoundError if the artifact is missing.
        """

    @abstractmethod
    def read_tags(self) -> dict[str, bytes]:
        """The content of every tag; see `storage.tags`."""

    @abstractmethod
    def write_tag(self, tag: str, artifact: str) -> None:
        """Point a tag to the artifact `kind/key`, durably."""

    @abstractmethod
    def swap_tag(self, tag: str, before: str | None, after: str | None) -> bool:
        """Point a tag that points to `before` to `after`, durably; None stands for no tag.

        False if it points elsewhere. Of several callers with the same `before` one succeeds, on this machine
        and on S3; on other object storage the tag is read first, then written.
        """

    @abstractmethod
    def remove_tag(self, tag: str) -> None:
        """Remove a tag. Raises FileNotFoundError if it does not exist."""

    def newest(self, kind: str) -> list[str]:
        """Keys of artifacts of a kind that were published on this machine last; see `Recent`."""
        return Recent(self.root, kind).keys()

    def without_manifest(self) -> Iterator[tuple[str, str]]:
        """(kind, key) of folders that have an artifact's name and have lost their manifest.

        On object storage these are stray objects.
        """
        return iter(())

    def stray_objects(self, before: datetime) -> list[Objects]:
        """Objects that no manifest names and that are older than `before`; local stores have none."""
        return []

    def remove_objects(self, objects: Objects, before: datetime) -> None:
        """Delete them, unless objects were added since, or a manifest names them now."""
        raise StorageError(f"{self} has no objects without a manifest")

    def lease(self, kind: str, key: str, *, again: bool) -> AbstractContextManager[None]:
        """What keeps other machines from building a key, where the local lock does not reach them.

        Unless it is to be built `again`, a machine that has waited for another's artifact needs none.
        """
        return nullcontext()

    @contextmanager
    def making(self, identity: Identity, *, again: bool = False) -> Iterator[WorkArea]:
        """A work area for the artifact, under its lock; a second process waits, then finds `made` set.

        The lock belongs to this process, so call this from the process that writes. With `again`, an existing
        artifact is built again, and replaced only when the new one is complete.
        """
        kind, key = identity.kind, identity.key
        durable.make_folder(self.root)
        with self.place.making(kind, key), self.lease(kind, key, again=again):
            path = self.place.work_path_of(kind, key)
            made = None if again else self.find_alone(kind, key)
            if made is None:
                durable.make_folder(path)
                drop_leftovers(path)
            yield WorkArea(self, identity, path, made, again)

    def peek(self, kind: str, key: str) -> Artifact | None:
        """Like `find`, but reads only the manifest and moves nothing. For listings."""
        try:
            return Artifact(self.place.path_of(kind, key), self.manifest_of(kind, key))
        except NewerVersionError:
            raise
        except (FileNotFoundError, StorageError):
            return None

    def named(self, name: str) -> Artifact | None:
        """Like `peek`, for a name `kind/key`; None for any other text, too."""
        kind, _, key = name.partition("/")
        return self.peek(kind, key)

    def here(self, artifact: Artifact) -> Artifact:
        """The artifact with the path at which this machine can read its files."""
        return replace(artifact, path=self.local_path(artifact.kind, artifact.key))

    def newest_artifacts(self, kind: str) -> list[Artifact]:
        """Like `peek`, for those of `newest` that are there; the newest is first."""
        found = (self.peek(kind, key) for key in self.newest(kind))
        whole = (artifact for artifact in found if artifact is not None)
        return sorted(whole, key=lambda artifact: artifact.manifest.created, reverse=True)

    def remove(self, kind: str, key: str) -> None:
        """Delete an artifact; an interrupted removal leaves no part of it.

        Raises FileNotFoundError if it is missing.
        """
        away = self.take_away(kind, key)
        if away is not None:
            remove_tree(away)

    @property
    def root(self) -> Path:
        """The local folder for everything that is not an artifact; for a local store, for everything."""
        return self.place.root
