"""The exchange format: detections, queries, ground truth and images as Parquet tables, from any program.

| table | columns |
|---|---|
| detections | image, x1, y1, x2, y2 (pixels), score, embedding (list of numbers, same length in all rows) |
| queries | query, image, x1, y1, x2, y2, embedding; person_id if the protocol goes by identity |
| boxes | ground truth: image, x1, y1, x2, y2, person_id (null = unlabelled); ignore, embedding (optional) |
| images | image; camera_id if the protocol goes by camera |

Readers raise PersonSearchError for tables that cannot be scored, naming the file, the row (from 0) and the
column, and issue a TableWarning for oddities that do not change any number.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.records import (
    BoolArray,
    Detections,
    FloatArray,
    GalleryLists,
    GroundTruth,
    IntArray,
    Queries,
)
from personsearch_core.identities import UNLABELLED

BOX = ("x1", "y1", "x2", "y2")
NAMES = ("image", "person_id", "query_id", "setting")
"""Columns that are read as strings, of any type."""
_SHOWN_NAMES = 3


class TableWarning(UserWarning):
    """An oddity in a table that does not change any number."""


@dataclass(frozen=True, eq=False)
class Names:
    """Names of images or people, by index; `what` says which, for messages."""

    what: str
    names: pa.Array

    @classmethod
    def of(cls, what: str, *columns: Iterable[str | None] | pa.Array | pa.ChunkedArray) -> Names:
        """All distinct names of the given columns, sorted."""
        chunks = [chunk for column in columns for chunk in _strings(column).chunks]
        distinct = pc.unique(pa.chunked_array(chunks, pa.string())).drop_null()
        return cls(what, distinct.take(pc.sort_indices(distinct)))

    def __len__(self) -> int:
        return len(self.names)

    def find(self, column: Iterable[str | None] | pa.Array | pa.ChunkedArray) -> IntArray:
        """Index of each name -> (n,); -1 for null and for unknown names."""
        index = pc.index_in(_strings(column), value_set=self.names, skip_nulls=True)
        return np.asarray(pc.fill_null(index, -1), np.int64)

    def index(self, table: ParquetTable, column: str) -> IntArray:
        """Index of each name of a table's column -> (n,); raises on the first unknown one."""
        index = self.find(table.column(column))
        if (index < 0).any():
            rows = np.flatnonzero(index < 0)
            unknown = dict.fromkeys(str(table.column(column)[int(row)]) for row in rows[:1000])
            shown = ", ".join(repr(name) for name in list(unknown)[:_SHOWN_NAMES])
            raise PersonSearchError(
                f"{table.path}: row {rows[0]}: unknown {self.what} {shown}: {len(rows)} of {len(index)} rows "
                f"have a {column!r} that is not in the other files. Correct the names or remove the rows"
            )
        return index


@dataclass(frozen=True, eq=False)
class ParquetTable:
    """A Parquet table and where it came from."""

    path: Path
    data: pa.Table

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column; raises if it is missing."""
        if name not in self.data.column_names:
            raise PersonSearchError(
                f"{self.path}: column {name!r} is missing; it has {', '.join(self.data.column_names)}"
            )
        return self.data[name]

    def numbers(self, name: str, dtype: type[np.floating] = np.float32) -> FloatArray:
        """A column of finite numbers (n,); raises on another type, null, NaN and infinity."""
        column = self.column(name)
        if not _is_numeric(column.type):
            raise PersonSearchError(f"{self.path}: column {name!r} must hold numbers, not {column.type}")
        self._refuse_nulls(name)
        with np.errstate(over="ignore"):  # Numbers that are too large become infinity and are rejected below.
            values: FloatArray = column.to_numpy().astype(dtype)
        self._refuse(~np.isfinite(values), lambda row: f"{name} is {values[row]}; give finite numbers")
        return values

    def integers(self, name: str) -> IntArray:
        """A column of integers (n,) int64; raises on another type and on null."""
        column = self.column(name)
        if not pa.types.is_integer(column.type):
            raise PersonSearchError(f"{self.path}: column {name!r} must hold integers, not {column.type}")
        self._refuse_nulls(name)
        return np.asarray(column, np.int64)

    def flags(self, name: str) -> BoolArray:
        """A column of booleans, or of integers 0 and 1 -> (n,) bool; null is false. Raises otherwise."""
        column = self.column(name)
        if pa.types.is_null(column.type):
            return np.zeros(len(self), bool)
        if not (pa.types.is_boolean(column.type) or pa.types.is_integer(column.type)):
            raise PersonSearchError(
                f"{self.path}: column {name!r} must hold true and false, or 0 and 1, not {column.type}"
            )
        values = np.asarray(pc.fill_null(column.cast(pa.int64()), 0))
        self._refuse(~np.isin(values, (0, 1)), lambda row: f"{name} is {values[row]}; give 0 or 1")
        return values.astype(bool)

    def boxes(self) -> FloatArray:
        """Boxes (n, 4) float32; raises if x2 < x1 or y2 < y1, as in a file of x, y, width, height."""
        boxes = np.stack([self.numbers(name) for name in BOX], axis=1)
        inverted = np.any(boxes[:, 2:] < boxes[:, :2], axis=1)
        why = "ends before it starts; boxes are x1, y1, x2, y2 in pixels"
        self._refuse(inverted, lambda row: f"box {boxes[row].tolist()} {why}")
        return boxes

    def embeddings(self) -> FloatArray:
        """Embeddings (n, d) float32; raises on rows of another length, on null, NaN and infinity."""
        column = self.column("embedding")
        kind = column.type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not is_list or not _is_numeric(kind.value_type):
            raise PersonSearchError(f"{self.path}: column 'embedding' must hold lists of numbers, not {kind}")
        self._refuse_nulls("embedding")
        lengths = pc.list_value_length(column).to_numpy()
        self._refuse(
            np.not_equal(lengths, lengths[0]),
            lambda row: f"embedding has {lengths[row]} numbers, row 0 has {lengths[0]}",
        )
        values = pa.concat_arrays([chunk.flatten() for chunk in column.chunks])
        if values.null_count:
            nulls = values.is_null().to_numpy(zero_copy_only=False).reshape(len(self), lengths[0])
            self._refuse(nulls.any(axis=1), lambda row: "embedding holds a null")
        embeddings = np.asarray(values, np.float32).reshape(len(self), lengths[0])
        sums = embeddings.sum(axis=1, dtype=np.float64)
        self._refuse(~np.isfinite(sums), lambda row: "embedding holds NaN or infinity")
        return embeddings

    def refuse_repeats(self, columns: Sequence[str]) -> None:
        """Raises if two rows agree in all the given columns."""
        repeats = self.data.select(columns).to_pandas().duplicated(keep=False).to_numpy()
        if repeats.any():
            rows = np.flatnonzero(repeats)
            first = self.data.select(columns).slice(rows[0], 1).to_pylist()[0]
            twin = next(r for r in rows[1:] if self.data.select(columns).slice(r, 1).to_pylist()[0] == first)
            raise PersonSearchError(
                f"{self.path}: duplicate rows: {rows[0]} and {twin} are both {first}; "
                f"{len(rows)} rows are repeated"
            )

    def _refuse_nulls(self, name: str) -> None:
        column = self.column(name)
        if column.null_count:
            self._refuse(column.is_null().to_numpy(), lambda row: f"{name} is null")

    def _refuse(self, rows: BoolArray, problem: Callable[[int], str]) -> None:
        """Raise for the first marked row of `rows` (n,), if any; `problem` says what is wrong with it."""
        if rows.any():
            row = int(rows.argmax())
            raise PersonSearchError(f"{self.path}: row {row}: {problem(row)}")


def open_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> ParquetTable:
    """Read the given columns of a Parquet file, and those of `optional` that exist.

    Raises PersonSearchError if the file cannot be read, lacks a column, has names that are not text, or has
    no rows.
    """
    if path.exists() and not path.is_file():
        raise PersonSearchError(f"{path}: not a readable Parquet file: it is not a regular file")
    try:
        present = pq.read_schema(path).names
        wanted = [name for name in (*columns, *optional) if name in present]
        table = ParquetTable(path, pq.read_table(path, columns=wanted))
    except FileNotFoundError as error:
        raise PersonSearchError(f"{path} does not exist") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise PersonSearchError(f"{path}: not a readable Parquet file: {error}") from error
    for name in columns:
        if name not in present:
            raise PersonSearchError(
                f"{path}: column {name!r} is missing; it has {', '.join(present) or 'none'}"
            )
    if not len(table):
        raise PersonSearchError(f"{path}: the table is empty")
    return ParquetTable(path, _with_names(path, table.data))


def _with_names(path: Path, table: pa.Table) -> pa.Table:
    for place, name in enumerate(table.column_names):
        if name in NAMES:
            try:
                table[name].validate(full=True)
            except pa.ArrowInvalid as error:
                raise PersonSearchError(f"{path}: column {name!r} cannot be read as text: {error}") from error
            try:
                names = _strings(table[name])
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise PersonSearchError(
                    f"{path}: column {name!r} must hold names, not {table[name].type}"
                ) from error
            table = table.set_column(place, name, names)
    return table


def open_detections(path: Path, *, embeddings: bool) -> ParquetTable:
    """The detections' columns; `embedding` only for a search."""
    columns = ("image", *BOX, "score")
    return open_table(path, (*columns, "embedding") if embeddings else columns)


def detections_from(table: ParquetTable, images: Names) -> Detections:
    """Raises on unknown images, bad numbers and duplicate rows; warns if rows are not grouped by image."""
    image, boxes, scores = images.index(table, "image"), table.boxes(), table.numbers("score")
    table.refuse_repeats(("image", *BOX, "score"))
    changes = np.flatnonzero(np.diff(image)) + 1
    starts = image[np.append(0, changes)]
    if len(np.unique(starts)) < len(starts):
        seen = np.unique(starts, return_index=True)[1]
        row = np.append(0, changes)[np.setdiff1d(np.arange(len(starts)), seen)[0]]
        warnings.warn(
            f"{table.path}: unsorted: row {row} goes back to image {table.column('image')[int(row)]}; "
            "rows are grouped by image before scoring",
            TableWarning,
            stacklevel=2,
        )
    has_embeddings = "embedding" in table.data.column_names
    embeddings = table.embeddings() if has_embeddings else np.zeros((len(table), 0), np.float32)
    return Detections(image, boxes, scores, embeddings)


def open_queries(path: Path, *, person_id: bool) -> ParquetTable:
    """The queries' columns, in the order of `query`; raises if a query repeats, warns if unsorted."""
    columns = ("query", "image", *BOX, "embedding")
    table = open_table(path, (*columns, "person_id") if person_id else columns)
    query = table.integers("query")
    table.refuse_repeats(("query",))
    if (np.diff(query) < 0).any():
        row = int((np.diff(query) < 0).argmax()) + 1
        warnings.warn(
            f"{path}: unsorted: row {row} is query {query[row]} after {query[row - 1]}; "
            "rows are sorted by query before scoring",
            TableWarning,
            stacklevel=2,
        )
    return ParquetTable(path, table.data.take(pa.array(np.argsort(query, kind="stable"))))


def queries_from(table: ParquetTable, images: Names, people: Names | None = None) -> Queries:
    """Raises on unknown images, bad numbers and, with `people`, on people without ground truth."""
    person = people.index(table, "person_id") if people is not None else None
    return Queries(images.index(table, "image"), table.boxes(), table.embeddings(), person)


def open_boxes(path: Path, *, embeddings: bool = False) -> ParquetTable:
    """The ground truth's columns; with `embeddings` also `embedding`, if there is one."""
    optional = ("ignore", "embedding") if embeddings else ("ignore",)
    return open_table(path, ("image", *BOX, "person_id"), optional)


def ground_truth_from(table: ParquetTable, images: Names, people: Names) -> GroundTruth:
    """Raises on unknown images and bad numbers."""
    person = people.find(table.column("person_id"))
    has_ignore = "ignore" in table.data.column_names
    ignore = table.flags("ignore") if has_ignore else np.zeros(len(table), bool)
    return GroundTruth(
        images.index(table, "image"), table.boxes(), np.where(person < 0, UNLABELLED, person), ignore
    )


def open_images(path: Path, *, camera_id: bool) -> ParquetTable:
    """The images' columns; raises if an image repeats."""
    table = open_table(path, ("image", "camera_id") if camera_id else ("image",))
    table.refuse_repeats(("image",))
    return table


def gallery_lists_from(
    gallery: pa.Table, query_ids: Sequence[str] | pa.Array | pa.ChunkedArray, images: Names
) -> GalleryLists:
    """Gallery lists from columns query_id, image_id, is_positive, x1..y2 (null where not positive).

    `query_ids` gives the order of the queries. Raises on unknown queries and images.
    """
    queries = Names("query", pa.array(_strings(query_ids).to_pylist(), pa.string()))
    table = ParquetTable(Path("gallery"), gallery)
    boxes = np.stack([pc.fill_null(gallery[name], 0).to_numpy().astype(np.float64) for name in BOX], axis=1)
    return GalleryLists.from_rows(
        queries.index(table, "query_id"),
        images.index(table, "image_id"),
        gallery["is_positive"].to_numpy(),
        boxes,
        len(queries),
    )


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _strings(column: Iterable[str | None] | pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    if isinstance(column, pa.ChunkedArray):
        return column.cast(pa.string())
    if isinstance(column, pa.Array):
        return pa.chunked_array([column]).cast(pa.string())
    return pa.chunked_array([pa.array(column, pa.string())])
