"""What a store of artifacts offers, wherever it lies: immutable folders that appear whole or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from storage import durable
from storage.errors import NewerVersionError, StorageError
from storage.folders import remove_tree
from storage.manifest import Identity, Manifest
from storage.place import Place
from storage.work_area import WorkArea, drop_manifest


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


class Store(ABC):
    """Artifacts by kind and key. Made by `storage.opening.open_store`.

    Whatever meets a manifest of a newer version raises NewerVersionError.
    """

    place: Place
    """Where this machine keeps its locks, work areas and logs, and all of a store that is a folder."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether anything was ever kept here."""

    @abstractmethod
    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact on this machine, when it exists whole; what is damaged is set aside and logged."""

    @abstractmethod
    def inspect(self, kind: str, key: str) -> Inspection:
        """As `find`, but what is damaged stays where it is, and is said; nothing is fetched.

        The artifact's path is where `find` will have it.
        """

    @abstractmethod
    def manifest_of(self, kind: str, key: str) -> Manifest:
        """The manifest alone. Raises FileNotFoundError where it is missing, StorageError where damaged."""

    @abstractmethod
    def manifests(self, kind: str | None = None) -> Iterator[tuple[str, str, bytes]]:
        """(kind, key, manifest as it is stored, unchecked) of every finished artifact; for listings."""

    @abstractmethod
    def keys(self, kind: str | None = None) -> Iterator[tuple[str, str]]:
        """(kind, key) of every finished artifact, in order."""

    @abstractmethod
    def hidden_manifests(self) -> Iterator[bytes]:
        """Manifests, unchecked, of artifacts that are out of sight: replaced, set aside, or being deleted."""

    @abstractmethod
    def local_path(self, kind: str, key: str) -> Path:
        """Where an artifact's files can be read on this machine."""

    @abstractmethod
    def verify(self, kind: str, key: str) -> list[str]:
        """Digest every file of an artifact and say what does not hold; nothing is moved."""

    @abstractmethod
    def distrust(self, kind: str, key: str) -> None:
        """Have every file of an artifact digested again when it is next asked for."""

    @abstractmethod
    def written_since(self, moment: datetime) -> set[str]:
        """The artifacts, `kind/key`, put here after a moment by the clock of whoever keeps them."""

    @abstractmethod
    def find_alone(self, kind: str, key: str) -> Artifact | None:
        """As `find`, for the holder of the key's lock."""

    @abstractmethod
    def publish(
        self,
        work: Path,
        manifest: Manifest,
        *,
        replace: bool = False,
        verified: Mapping[str, list[int]] | None = None,
    ) -> Artifact:
        """Make a work area an artifact: its files first, then the manifest, all of it flushed.

        The caller holds the lock of `making`, and the files in `work` are those of the manifest. `replace`
        says that the key may have an artifact, which makes a difference where no lock reaches all writers.
        `verified` is the `stat_keys` of the files from before they were digested: what changes after that is
        digested again. Without it, that of now.
        """

    @abstractmethod
    def set_aside(self, kind: str, key: str, why: str) -> Path:
        """Move an artifact out of sight, to be looked at by a person; whoever needs it makes it again.

        Raises FileNotFoundError when it is missing. Waits for a process that is making it.
        """

    @abstractmethod
    def reopen(self, kind: str, key: str) -> Path:
        """Make an artifact a work area again, to be resumed by whoever makes it; returns the work area.

        Raises FileNotFoundError when it is missing.
        """

    @abstractmethod
    def take_away(self, kind: str, key: str) -> Path | None:
        """The first half of `remove`: the artifact is out of sight, and its folder is to be deleted.

        Returns that folder, None where nothing is left. Raises FileNotFoundError when it is missing.
        """

    @abstractmethod
    def read_tags(self) -> dict[str, bytes]:
        """What every tag holds; see `storage.tags`."""

    @abstractmethod
    def write_tag(self, tag: str, artifact: str) -> None:
        """Let a tag hold the artifact `kind/key`, so that it lasts."""

    @abstractmethod
    def remove_tag(self, tag: str) -> None:
        """Raises FileNotFoundError when no tag has that name."""

    def stray_objects(self, before: datetime) -> list[Objects]:
        """What no manifest names and was not touched since a moment; folders have none."""
        return []

    def remove_objects(self, objects: Objects, before: datetime) -> None:
        """Delete them, unless something was added to them since or a manifest names them now."""
        raise StorageError(f"{self} has no objects without a manifest")

    @contextmanager
    def making(self, identity: Identity, *, again: bool = False) -> Iterator[WorkArea]:
        """A work area for the artifact, under its lock; a second process waits, then finds `made` set.

        The lock belongs to this process: call it from the process that writes. With `again` an artifact that
        exists is made once more, and replaced only when its successor is whole.
        """
        kind, key = identity.kind, identity.key
        durable.make_folder(self.root)
        with self.place.making(kind, key):
            path = self.work_path_of(kind, key)
            made = None if again else self.find_alone(kind, key)
            if made is None:
                durable.make_folder(path)
                drop_manifest(path)
            yield WorkArea(self, identity, path, made, again)

    def peek(self, kind: str, key: str) -> Artifact | None:
        """As `find`, but by the manifest alone: no file is looked at, nothing is moved. For listings."""
        try:
            return Artifact(self.path_of(kind, key), self.manifest_of(kind, key))
        except NewerVersionError:
            raise
        except (FileNotFoundError, StorageError):
            return None

    def remove(self, kind: str, key: str) -> None:
        """Delete an artifact; an interrupted removal leaves no part of it.

        Raises FileNotFoundError when it is missing.
        """
        away = self.take_away(kind, key)
        if away is not None:
            remove_tree(away)

    @property
    def root(self) -> Path:
        """The folder of this machine where the store keeps what is not an artifact, or all of it."""
        return self.place.root

    def path_of(self, kind: str, key: str) -> Path:
        """Where `find` has an artifact. Raises StorageError when `kind` or `key` is not one plain name."""
        return self.place.path_of(kind, key)

    def work_path_of(self, kind: str, key: str) -> Path:
        return self.place.work_path_of(kind, key)

    def log_path_of(self, kind: str, key: str) -> Path:
        return self.place.log_path_of(kind, key)

    def work_areas(self) -> Iterator[tuple[str, str]]:
        """(kind, key) of every unfinished work area of this machine."""
        return self.place.work_areas()

    def holder(self, kind: str, key: str) -> int | None:
        """The process of this machine that is making this artifact now, if any."""
        return self.place.holder(kind, key)

    def making_now(self, kind: str, key: str) -> AbstractContextManager[bool]:
        """The lock of `making` without waiting for it: False when another process holds it."""
        return self.place.making_now(kind, key)
