"""A snapshot's directory: written as a stream, read with filters pushed down to Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.errors import CatalogError
from data_catalog.findings import Finding
from data_catalog.row_digests import digest_rows
from data_catalog.row_tables import COORDINATES, one_value
from data_catalog.rows import Tables
from data_catalog.schema import BOXES, GALLERY, IMAGES, INVALID, QUERIES, REJECTS, TABLES

if TYPE_CHECKING:
    import pyarrow.dataset as ds

ROW_GROUP = 131_072
"""Rows; a filter skips whole row groups."""
GALLERY_FOLDER = "gallery"
_WITHOUT_COUNTS = pa.schema([field for field in IMAGES if field.name not in ("dataset", "n_boxes")])
ALL_DIFFERENT = ("box_id", "source_row", *COORDINATES)
"""Columns with a value of its own in nearly every row: to look for repetitions only takes time."""


def table_schema(name: str) -> pa.Schema:
    """The columns of a table; raises CatalogError when none is named so."""
    if name not in TABLES:
        raise CatalogError(f"no table is named {name!r}; there are: {', '.join(TABLES)}")
    return TABLES[name]


def table_path(directory: Path, name: str) -> Path:
    """Where a table lies: one file, but for `gallery`, a folder with one file per protocol."""
    return directory / GALLERY_FOLDER if name == "gallery" else directory / f"{name}.parquet"


def scan(paths: Path | Sequence[Path], schema: pa.Schema) -> ds.Dataset:
    """A pyarrow dataset over Parquet files; its module loads pandas, so it is imported only for a scan."""
    import pyarrow.dataset as ds

    source = str(paths) if isinstance(paths, Path) else [str(path) for path in paths]
    layout = ds.ParquetFileFormat(dictionary_columns=_encoded(schema))
    return ds.dataset(source, schema=schema, format=layout)


def _matching(path: Path, schema: pa.Schema, filter: pc.Expression) -> ds.Fragment:
    """The file without row groups in which no row can match.

    Arrow holds no statistics against columns that it reads as dictionaries, so they are asked as plain text.
    """
    import pyarrow.dataset as ds

    as_text = next(ds.dataset(str(path), format="parquet").get_fragments())
    groups = [group.id for group in as_text.subset(filter).row_groups]
    return next(scan(path, schema).get_fragments()).subset(row_group_ids=groups)


def _whole(path: Path, schema: pa.Schema) -> pa.Table:
    """The file's columns of the schema; null for those that an earlier version did not write."""
    there = set(pq.read_schema(path).names)
    written = pa.schema([field for field in schema if field.name in there])
    table = pq.ParquetFile(path, read_dictionary=_encoded(written)).read(written.names)
    columns = {name: table[name] for name in table.column_names}
    nothing = {field.name: pa.nulls(len(table), field.type) for field in schema if field.name not in there}
    return pa.table({name: {**columns, **nothing}[name] for name in schema.names}).cast(schema)


def _encoded(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_dictionary(field.type)]


class TableStream:
    """Rows of one schema into one Parquet file, a row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.schema = schema
        self.rows = 0
        self.digests: list[str] = []
        """Of the rows of each row group that was written."""
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=1,
            store_schema=False,
            use_dictionary=[field.name for field in schema if field.name not in ALL_DIFFERENT],
        )

    def write(self, table: pa.Table) -> None:
        """Add rows; they reach the file when they fill a row group."""
        if not len(table):
            return
        self._pending.append(table)
        self._pending_rows += len(table)
        self.rows += len(table)
        if self._pending_rows >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is pending and the file's footer; again does nothing."""
        if self._pending_rows:
            self._flush(final=True)
        self._writer.close()

    def _flush(self, *, final: bool = False) -> None:
        """Write whole row groups; how rows came in parts must not show in the file."""
        table = pa.concat_tables(self._pending).unify_dictionaries()
        whole = len(table) if final else len(table) - len(table) % ROW_GROUP
        self._writer.write_table(table.slice(0, whole), row_group_size=ROW_GROUP)
        self.digests += _digests(table.slice(0, whole))
        self._pending, self._pending_rows = [table.slice(whole)], len(table) - whole


class SnapshotWriter:
    """Writes the tables of one dataset into an empty directory; use it as a context manager.

    Boxes and gallery rows go straight to disk; images and queries are kept until the end,
    because the number of boxes of an image is known only then.
    """

    def __init__(self, directory: Path, dataset: str) -> None:
        self.directory = directory
        self.dataset = dataset
        gallery = table_path(directory, "gallery")
        gallery.mkdir(parents=True, exist_ok=True)
        for left in gallery.glob("*.parquet"):  # of a writer that was killed
            left.unlink()
        self._images: list[pa.Table] = []
        self._queries: list[pa.Table] = []
        self._box_counts: list[pa.Table] = []
        self._boxes = TableStream(table_path(directory, "boxes"), BOXES)
        self._rejects = TableStream(table_path(directory, "rejects"), REJECTS)
        self._galleries: dict[str, TableStream] = {}
        self._digests: dict[str, list[str]] = {}

    def __enter__(self) -> SnapshotWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_streams()

    def write(self, tables: Tables, sha256: Sequence[str | None] | pa.Array | None = None) -> None:
        """Add an adapter's rows; `sha256` are the digests of its images."""
        images = tables.images.append_column(
            IMAGES.field("sha256"),
            pa.nulls(len(tables.images), pa.string()) if sha256 is None else pa.array(sha256, pa.string()),
        )
        self._images.append(images.select(_WITHOUT_COUNTS.names))
        if len(tables.boxes):
            self._boxes.write(tables.boxes)
            self._box_counts.append(
                tables.boxes.select(["image_id"]).group_by("image_id").aggregate([([], "count_all")])
            )
        self._rejects.write(tables.rejects)
        self._queries.append(tables.queries)
        self.write_gallery(tables.gallery)

    def images_and_queries(self) -> tuple[pa.Table, pa.Table]:
        """All images and all queries written so far."""
        images = pa.concat_tables([_WITHOUT_COUNTS.empty_table(), *self._images]).unify_dictionaries()
        queries = pa.concat_tables([QUERIES.empty_table(), *self._queries]).unify_dictionaries()
        return images, queries

    def close_boxes(self) -> ds.Dataset:
        """End the writing of boxes, and read them back."""
        self._boxes.close()
        return scan(self._boxes.path, BOXES)

    def write_rejects(self, rejects: pa.Table) -> None:
        """Add rejects that only the whole of the rows shows."""
        self._rejects.write(rejects)

    def write_gallery(self, gallery: pa.Table) -> None:
        """Add gallery rows, of one protocol or several."""
        for protocol in gallery["protocol"].unique().to_pylist():
            if protocol not in self._galleries:
                path = table_path(self.directory, "gallery") / f"{protocol}.parquet"
                self._galleries[protocol] = TableStream(path, GALLERY)
            self._galleries[protocol].write(gallery.filter(pc.equal(gallery["protocol"], protocol)))

    def finish(self, queries: pa.Table, describe: Callable[[], Mapping[str, Any]]) -> None:
        """Write the tables that need all rows: images with their number of boxes, queries, and the dataset.

        `describe` gives the columns of `datasets` but the name, once the other tables can be read.
        """
        self._close_streams()
        images, _ = self.images_and_queries()
        _check_unique(images)
        counts = _counts_of(images["image_id"], self._box_counts)
        columns = {"dataset": one_value(self.dataset, len(images)), "n_boxes": counts}
        whole = pa.Table.from_arrays(
            [columns[f.name] if f.name in columns else images[f.name] for f in IMAGES], schema=IMAGES
        )
        for name, table in (("images", whole), ("queries", queries)):
            write_table(table_path(self.directory, name), table)
            self._digests[name] = _digests(table)
        row = {**describe(), "name": self.dataset}
        write_table(
            table_path(self.directory, "datasets"), pa.Table.from_pylist([row], schema=TABLES["datasets"])
        )

    def row_digests(self) -> dict[str, list[str]]:
        """Of each table but `datasets`, the digests of its rows in blocks of ROW_GROUP, once all is written.

        They are taken on the way to the disk, so that the rows are not read back for them.
        """
        galleries = sorted(self._galleries.items(), key=lambda item: f"{item[0]}.parquet")
        return {
            **self._digests,
            "boxes": self._boxes.digests,
            "rejects": self._rejects.digests,
            "gallery": [digest for _, stream in galleries for digest in stream.digests],
        }

    def _close_streams(self) -> None:
        for stream in (self._boxes, self._rejects, *self._galleries.values()):
            stream.close()


def _digests(table: pa.Table) -> list[str]:
    """Of the rows of a table, in blocks of ROW_GROUP."""
    return [digest_rows(table.slice(start, ROW_GROUP)) for start in range(0, len(table), ROW_GROUP)]


def write_table(path: Path, table: pa.Table) -> None:
    """One table into one Parquet file, in row groups of ROW_GROUP."""
    pq.write_table(
        table, path, compression="zstd", compression_level=1, row_group_size=ROW_GROUP, store_schema=False
    )


class Snapshot:
    """Reads the tables of an ingested dataset.

    Parameters
    ----------
    path
        The snapshot's folder.

    Raises
    ------
    CatalogError
        If it is not a snapshot, or has the columns of another version.

    Examples
    --------
    >>> snapshot = catalog["prw"].snapshot
    >>> snapshot.count("images"), snapshot.protocols()
    (10, ['prw'])
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        images = table_path(self.path, "images")
        if not images.is_file():
            raise CatalogError(f"{self.path} is not a snapshot: images.parquet not found")
        found = pq.read_schema(images).names
        unknown = [name for name in found if name not in IMAGES.names]
        lacking = [field.name for field in IMAGES if not field.nullable and field.name not in found]
        if unknown or lacking:
            raise CatalogError(
                f"{self.path}: the snapshot was made by another version, with other columns "
                f"({', '.join(unknown + lacking)}): ingest it again"
            )

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{self.count(name):,} {name}" for name in ("images", "boxes", "queries", "rejects")
        )
        return f"<Snapshot of {self.name}: {counts}; {self.path}>"

    def table(
        self, name: str, columns: Sequence[str] | None = None, filter: pc.Expression | None = None
    ) -> pa.Table:
        """Read a table, or some columns and rows of it.

        Parameters
        ----------
        name
            images, boxes, queries, gallery, rejects or datasets.
        columns
            Names of columns; all by default.
        filter
            A pyarrow.compute expression on the table's columns; row groups that cannot match are not read.

        Returns
        -------
        pyarrow.Table
            The columns of `schema.TABLES[name]`, or those asked for.

        Examples
        --------
        >>> catalog["prw"].snapshot.table("images", ["image_id"]).shape
        (10, 1)
        """
        names = list(columns) if columns is not None else None
        schema, path = table_schema(name), table_path(self.path, name)
        if name == "gallery":
            return self.dataset(name).to_table(columns=names, filter=filter)
        if filter is None:
            return _whole(path, schema if names is None else pa.schema([schema.field(n) for n in names]))
        return _matching(path, schema, filter).to_table(schema=schema, columns=names, filter=filter)

    def dataset(self, name: str) -> ds.Dataset:
        """The table as a pyarrow dataset, for scans that should not load it at once."""
        schema, path = table_schema(name), table_path(self.path, name)
        return scan(sorted(path.glob("*.parquet")) if name == "gallery" else path, schema)

    def count(self, name: str) -> int:
        """Count a table's rows; only the footers of its files are read.

        Examples
        --------
        >>> catalog["prw"].snapshot.count("rejects")
        0
        """
        return int(self.dataset(name).count_rows())

    def gallery(self, protocol: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The gallery rows of one protocol; none where its galleries are given by a rule, not by a file."""
        path = table_path(self.path, "gallery") / f"{protocol}.parquet"
        if path.parent != table_path(self.path, "gallery") or not path.is_file():
            empty = GALLERY.empty_table()
            return empty if columns is None else empty.select(list(columns))
        return scan(path, GALLERY).to_table(columns=None if columns is None else list(columns))

    def require_splits(self, wanted: Iterable[str]) -> None:
        """Raise CatalogError for a split that no image is in."""
        known = set(self.table("images", ["split"])["split"].unique().to_pylist())
        unknown = next((split for split in wanted if split not in known), None)
        if unknown is not None:
            there = ", ".join(sorted(known))
            raise CatalogError(f"{self.name}: no images in split {unknown!r}; there is: {there}")

    def protocols(self) -> list[str]:
        """Names of the protocols that have queries."""
        return sorted(self.table("queries", ["protocol"])["protocol"].unique().to_pylist())

    @property
    def name(self) -> str:
        """The dataset's name."""
        return str(self.table("datasets", ["name"])["name"][0].as_py())


def image_digests(images: pa.Table) -> dict[str, str]:
    """SHA-256 of images by path; those of a snapshot made without images are left out."""
    known = images.filter(pc.is_valid(images["sha256"]))
    return dict(zip(known["rel_path"].to_pylist(), known["sha256"].to_pylist(), strict=True))


def counts_found(snapshot: Snapshot) -> dict[str, int]:
    """The counts that the ingest wrote into the snapshot."""
    return dict(snapshot.table("datasets", ["counts_found"])["counts_found"][0].as_py())


def ingest_findings(snapshot: Snapshot) -> list[Finding]:
    """What the ingest found and no table shows: files left over, notes of the adapter, an empty outcome."""
    found = snapshot.table("datasets", ["findings"])["findings"][0].as_py()
    return [Finding(**each) for each in found or ()]


def invalid_rejects(snapshot: Snapshot) -> pa.Table:
    """Rejects that mean damage, without those that the format's own rules exclude."""
    return snapshot.table("rejects", filter=pc.field("severity") == INVALID)


def _check_unique(images: pa.Table) -> None:
    image_ids = images["image_id"]
    if pc.count_distinct(image_ids).as_py() == len(image_ids):
        return
    counted = image_ids.value_counts()
    twice = counted.filter(pc.greater(counted.field("counts"), 1))[0]["values"]
    where = images["source_unit"].filter(pc.equal(image_ids, twice)).unique().to_pylist()
    raise CatalogError(
        f"image {twice.as_py()!r} appears twice, in {' and in '.join(where[:2])}; the names of images must "
        "be unique in a dataset: where files annotate the same images, name those to read by the adapter's "
        "options (annotations=FILE, for coco), and ingest the others as a dataset of their own"
    )


def _counts_of(image_ids: pa.ChunkedArray, counted: Sequence[pa.Table]) -> pa.Array:
    if not counted:
        return pa.repeat(pa.scalar(0, pa.int32()), len(image_ids))
    totals = pa.concat_tables(counted).group_by("image_id").aggregate([("count_all", "sum")])
    unknown = totals["image_id"].filter(pc.invert(pc.is_in(totals["image_id"], value_set=image_ids)))
    if len(unknown):
        raise CatalogError(f"there are boxes of image {unknown[0].as_py()!r}, which the adapter never listed")
    position = pc.index_in(image_ids, value_set=totals["image_id"])
    return pc.fill_null(totals["count_all_sum"].take(position), 0).cast(pa.int32()).combine_chunks()
