"""Datasets by name, alone or several as one table; `flows.plan.catalog.open_catalog` opens those of a store.

catalog = open_catalog("STORE")
catalog["prw"].boxes(split="train", columns=["image_id", "person_id"]).to_pandas()
catalog.boxes(["prw", "mot17"], split="train", filter=~pc.field("ignore"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypedDict, Unpack

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError
from data_catalog.row_tables import one_value
from data_catalog.schema import NAME
from data_catalog.snapshot import Snapshot, table_schema


class Snapshots(Protocol):
    """Where a catalog finds the snapshots of datasets."""

    def names(self) -> list[str]:
        """Names of the datasets that have a snapshot."""

    def folder(self, name: str) -> Path:
        """The snapshot of a dataset; CatalogError if it has none."""


class RowSelection(TypedDict, total=False):
    """Which rows and columns of a table are read; see `Dataset.table`."""

    split: str | Sequence[str] | None
    columns: Sequence[str] | None
    filter: pc.Expression | None


class Dataset:
    """One ingested dataset: the snapshot that its last ingest made, or found.

    Parameters
    ----------
    folder
        The snapshot's folder.

    Examples
    --------
    >>> catalog["prw"]
    <Dataset prw: 4 images in test, 6 images in train>
    """

    def __init__(self, folder: Path) -> None:
        self.snapshot = Snapshot(folder)

    def __repr__(self) -> str:
        counted = self.snapshot.table("images", ["split"])["split"].cast(pa.string()).value_counts()
        counts = sorted((each["values"], each["counts"]) for each in counted.to_pylist())
        splits = ", ".join(f"{count:,} images in {split}" for split, count in counts)
        return f"<Dataset {self.snapshot.name}: {splits or 'no images'}>"

    def table(
        self,
        name: str,
        *,
        split: str | Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
    ) -> pa.Table:
        """Read columns and rows of a table; row groups that cannot match are not read.

        Parameters
        ----------
        name
            images, boxes, queries, gallery, rejects or datasets.
        split
            One split or several; only for tables with that column.
        columns
            Names of columns; all by default.
        filter
            A pyarrow.compute expression on the table's columns.

        Returns
        -------
        pyarrow.Table
            The rows; columns and units are those of `schema.TABLES[name]`.

        Raises
        ------
        CatalogError
            For a table, column or split that does not exist, or a filter that does not fit.

        Examples
        --------
        >>> catalog["prw"].table("boxes", split="test", columns=["image_id", "x1"]).column_names
        ['image_id', 'x1']
        """
        self._check_columns(name, [*(columns or ()), *(["split"] if split is not None else [])])
        wanted = None
        if split is not None:
            splits = [split] if isinstance(split, str) else list(split)
            self.snapshot.require_splits(splits)
            for each in splits:
                of_split = pc.field("split") == each
                wanted = of_split if wanted is None else wanted | of_split
        if filter is not None:
            wanted = filter if wanted is None else wanted & filter
        try:
            return self.snapshot.table(name, columns, wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise CatalogError(f"{self.snapshot.name}: {name}: the filter does not fit: {error}") from error

    def images(self, **rows: Unpack[RowSelection]) -> pa.Table:
        """Read images, with sizes in pixels.

        Parameters
        ----------
        **rows
            `split`, `columns` and `filter`, as in `table`.

        Examples
        --------
        >>> catalog["prw"].images(split="train", columns=["width"])["width"].unique().to_pylist()
        [96]
        """
        return self.table("images", **rows)

    def boxes(self, **rows: Unpack[RowSelection]) -> pa.Table:
        """Read boxes: x1, y1, x2, y2 in pixels, 0-based, x2 and y2 exclusive, unclipped.

        Parameters
        ----------
        **rows
            `split`, `columns` and `filter`, as in `table`.

        Examples
        --------
        >>> len(catalog["prw"].boxes(filter=pc.field("ignore")))
        0
        """
        return self.table("boxes", **rows)

    def _check_columns(self, name: str, columns: Sequence[str]) -> None:
        known = table_schema(name).names
        unknown = next((column for column in columns if column not in known), None)
        if unknown is not None:
            raise CatalogError(f"table {name!r} has no column {unknown!r}; it has: {', '.join(known)}")


class Catalog:
    """Datasets by name.

    Parameters
    ----------
    snapshots
        Where the datasets' snapshots lie.

    Examples
    --------
    >>> catalog
    <Catalog: prw>
    >>> catalog.boxes(["prw"], split="train", columns=["image_id"]).column_names
    ['dataset', 'image_id']
    """

    def __init__(self, snapshots: Snapshots) -> None:
        self.snapshots = snapshots

    def __repr__(self) -> str:
        return f"<Catalog: {', '.join(self.names()) or 'no datasets'}>"

    def names(self) -> list[str]:
        """Names of the datasets that have a snapshot."""
        return self.snapshots.names()

    def __getitem__(self, name: str) -> Dataset:
        """The dataset as its last ingest found it; raises CatalogError if no snapshot has that name."""
        return Dataset(self.snapshots.folder(name))

    def images(self, names: Sequence[str], **rows: Unpack[RowSelection]) -> pa.Table:
        """Images of several datasets as one table; see `Dataset.images`. Its first column is `dataset`."""
        return self._union("images", names, rows)

    def boxes(self, names: Sequence[str], **rows: Unpack[RowSelection]) -> pa.Table:
        """Boxes of several datasets as one table, in pixels as in `Dataset.boxes`. Its first column is
        `dataset`: names of images and identities are unique within one.
        """
        return self._union("boxes", names, rows)

    def _union(self, table: str, names: Sequence[str], selection: RowSelection) -> pa.Table:
        if isinstance(names, str) or not names:
            raise CatalogError("give a list of names of datasets")
        parts = []
        for name in names:
            rows = self[name].table(table, **selection)
            if "dataset" in rows.column_names:
                rows = rows.drop_columns(["dataset"])
            dataset = pa.field("dataset", NAME, nullable=False)
            parts.append(rows.add_column(0, dataset, one_value(name, len(rows))))
        return pa.concat_tables(parts).unify_dictionaries()
