"""The datasets of a store by their names, alone or several as one table.

catalog = open_catalog("STORE")
catalog["prw"].boxes(split="train", columns=["image_id", "person_id"]).to_pandas()
catalog.boxes(["prw", "mot17"], split="train", filter=~pc.field("ignore"))
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError
from data_catalog.schema import NAME, TABLES
from data_catalog.snapshot import Snapshot
from storage.artifacts import Artifact, LocalStore
from storage.opening import open_store

log = logging.getLogger(__name__)

KIND = "ingest"
"""The kind of artifact that a snapshot is."""


def open_catalog(store: str | Path) -> Catalog:
    """The datasets that were ingested into a store: a folder, or an object store's URL.

    Raises:
        StorageError: when the URL has no driver.
    """
    return Catalog(open_store(str(store)))


class Dataset:
    """One ingested dataset: the snapshot that its last ingest made, or found."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.snapshot = Snapshot(artifact.path)

    def table(
        self,
        name: str,
        *,
        split: str | Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
    ) -> pa.Table:
        """Columns and rows of a table of `schema.TABLES`; row groups that cannot match are not read.

        `split` is one split or several (tables with that column alone), `filter` an expression on the table's
        columns.

        Raises:
            CatalogError: for a table, a column or a split that is not there.
        """
        if name not in TABLES:
            raise CatalogError(f"no table is named {name!r}; there are: {', '.join(TABLES)}")
        self._check_columns(name, [*(columns or ()), *(["split"] if split is not None else [])])
        wanted = None
        if split is not None:
            splits = [split] if isinstance(split, str) else list(split)
            self._check_splits(splits)
            for each in splits:
                of_split = pc.field("split") == each
                wanted = of_split if wanted is None else wanted | of_split
        if filter is not None:
            wanted = filter if wanted is None else wanted & filter
        try:
            return self.snapshot.table(name, columns, wanted)
        except pa.ArrowInvalid as error:
            raise CatalogError(f"{self.snapshot.name}: {name}: the filter does not fit: {error}") from error

    def images(
        self,
        *,
        split: str | Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
    ) -> pa.Table:
        """Images, with sizes in pixels; see `table`."""
        return self.table("images", split=split, columns=columns, filter=filter)

    def boxes(
        self,
        *,
        split: str | Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
    ) -> pa.Table:
        """Boxes in pixels, 0-based, x2 and y2 exclusive, unclipped; see `table`."""
        return self.table("boxes", split=split, columns=columns, filter=filter)

    def _check_columns(self, name: str, columns: Sequence[str]) -> None:
        known = TABLES[name].names
        unknown = next((column for column in columns if column not in known), None)
        if unknown is not None:
            raise CatalogError(f"table {name!r} has no column {unknown!r}; it has: {', '.join(known)}")

    def _check_splits(self, splits: Sequence[str]) -> None:
        known = set(self.snapshot.table("images", ["split"])["split"].unique().to_pylist())
        unknown = next((split for split in splits if split not in known), None)
        if unknown is not None:
            there = ", ".join(sorted(known))
            raise CatalogError(f"{self.snapshot.name}: no images in split {unknown!r}; there is: {there}")


class Catalog:
    """The datasets of one store."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store

    def names(self) -> list[str]:
        """Names of the datasets that have a snapshot."""
        return sorted({_name(artifact) for artifact in self._snapshots()})

    def __getitem__(self, name: str) -> Dataset:
        """The dataset as its last ingest found it.

        Raises:
            CatalogError: when the store holds no snapshot of that name.
        """
        return Dataset(self._artifact(name))

    def images(
        self,
        names: Sequence[str],
        *,
        split: str | Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
    ) -> pa.Table:
        """Images of several datasets as one table; see `Dataset.table`. Its first column is `dataset`."""
        return self._union("images", names, {"split": split, "columns": columns, "filter": filter})

    def boxes(
        self,
        names: Sequence[str],
        *,
        split: str | Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
    ) -> pa.Table:
        """Boxes of several datasets as one table, in pixels as in `Dataset.boxes`. Its first column is
        `dataset`: names of images and identities are unique within one.
        """
        return self._union("boxes", names, {"split": split, "columns": columns, "filter": filter})

    def remember(self, name: str, key: str) -> None:
        """Note which snapshot a dataset's last ingest made or found; kept on this machine."""
        path = self._pointer(name)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(key)
            temporary.replace(path)
        except OSError as error:
            log.info("the snapshot of %s is not remembered: %s", name, error)  # a read-only store

    def _union(self, table: str, names: Sequence[str], how: Mapping[str, object]) -> pa.Table:
        if isinstance(names, str) or not names:
            raise CatalogError("give a list of names of datasets")
        parts = []
        for name in names:
            rows = self[name].table(table, **how)  # type: ignore[arg-type]
            if "dataset" in rows.column_names:
                rows = rows.drop_columns(["dataset"])
            which = pa.DictionaryArray.from_arrays(pa.array([0] * len(rows), pa.int32()), pa.array([name]))
            parts.append(rows.add_column(0, pa.field("dataset", NAME, nullable=False), which))
        return pa.concat_tables(parts).unify_dictionaries()

    def _artifact(self, name: str) -> Artifact:
        try:
            key = self._pointer(name).read_text()
        except OSError:
            key = ""
        if key.isalnum():
            found = self.store.find(KIND, key)
            if found is not None and _name(found) == name:
                return found
        of_name = [artifact for artifact in self._snapshots() if _name(artifact) == name]
        for artifact in sorted(of_name, key=lambda each: each.manifest.created, reverse=True):
            sound = self.store.find(KIND, artifact.key)
            if sound is not None:
                return sound
        known = ", ".join(self.names()) or "none"
        raise CatalogError(f"{self.store} holds no snapshot of {name!r}; it has: {known}")

    def _snapshots(self) -> list[Artifact]:
        peeked = (self.store.peek(kind, key) for kind, key in self.store.keys(KIND))
        return [artifact for artifact in peeked if artifact is not None]

    def _pointer(self, name: str) -> Path:
        return self.store.root / ".cache" / "snapshots" / quote(name, safe="")


def _name(artifact: Artifact) -> str:
    return str(artifact.manifest.identity.recipe.get("dataset"))
