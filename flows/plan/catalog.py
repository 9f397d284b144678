"""The catalog of a store: which of its snapshots is a dataset's own."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from data_catalog.errors import CatalogError
from data_catalog.suggestions import did_you_mean
from storage import durable
from storage.opening import open_store
from storage.store import Artifact, Store

if TYPE_CHECKING:
    from data_catalog.catalog import Catalog

log = logging.getLogger(__name__)

KIND = "ingest"
"""The kind of artifact that a snapshot is."""


def open_catalog(store: str | Path) -> Catalog:
    """The datasets that were ingested into a store: a folder, or an object store's URL.

    Raises StorageError when the URL has no driver.
    """
    from data_catalog.catalog import Catalog

    return Catalog(StoreSnapshots(open_store(str(store))))


class StoreSnapshots:
    """Snapshots in a store: of each dataset, that of its last ingest."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def names(self) -> list[str]:
        return sorted({_name(artifact) for artifact in self._all()})

    def folder(self, name: str) -> Path:
        return self.artifact(name).path

    def remember(self, name: str, key: str, root: Path) -> None:
        """Note which snapshot a dataset's last ingest made or found, of which root; kept on this machine."""
        path = self._pointer(name)
        try:
            durable.make_folder(path.parent)
            durable.write(path, f"{key}\n{root.absolute()}")
        except OSError as error:
            log.info("the snapshot of %s is not remembered: %s", name, error)  # a read-only store

    def root(self, name: str) -> Path | None:
        """The folder that the dataset's last ingest on this machine read; None where that is not known."""
        _, root = self._remembered(name)
        return Path(root) if root else None

    def artifact(self, name: str) -> Artifact:
        """The snapshot that the last ingest made or found; CatalogError when the store holds none."""
        key, _ = self._remembered(name)
        if key.isalnum():
            found = self.store.find(KIND, key)
            if found is not None and _name(found) == name:
                return found
        of_name = [artifact for artifact in self._all() if _name(artifact) == name]
        for artifact in sorted(of_name, key=lambda each: each.manifest.created, reverse=True):
            sound = self.store.find(KIND, artifact.key)
            if sound is not None:
                return sound
        known = ", ".join(self.names()) or "none"
        hint = did_you_mean(name, self.names()) or (
            f"; it has: {known}. To add it: personsearch datasets ingest ROOT --name {shlex.quote(name)} "
            f"--store {shlex.quote(str(self.store))}"
        )
        raise CatalogError(f"{self.store} holds no snapshot of {name!r}{hint}")

    def _remembered(self, name: str) -> tuple[str, str]:
        """Key and root that `remember` noted; empty where there are none that can be read."""
        path = self._pointer(name)
        try:
            key, _, root = path.read_text().partition("\n")
            return key, root
        except OSError:
            return "", ""
        except UnicodeDecodeError as error:
            log.warning("%s is damaged, and the newest snapshot is taken: %s", path, error)
            return "", ""

    def _all(self) -> list[Artifact]:
        peeked = (self.store.peek(kind, key) for kind, key in self.store.keys(KIND))
        return [artifact for artifact in peeked if artifact is not None]

    def _pointer(self, name: str) -> Path:
        return self.store.root / ".cache" / "snapshots" / quote(name, safe="")


def _name(artifact: Artifact) -> str:
    return str(artifact.manifest.identity.recipe.get("dataset"))
