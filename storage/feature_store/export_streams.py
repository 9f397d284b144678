"""Rows of a feature store as Parquet, Arrow or WebDataset: read and written a part at a time."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.feature_store.reader import FeatureReader

PART_BYTES = 64 << 20
"""Of features that are held at once."""

Part = tuple[np.ndarray, np.ndarray, pa.Table]
"""Numbers of rows (n,), their features (n, *row shape), and their entries of the index."""


def _parts(reader: FeatureReader, rows: np.ndarray, index: pa.Table) -> Iterator[Part]:
    row_bytes = max(1, math.prod(reader.shape[1:]) * reader.dtype.itemsize)
    at_once = max(1, PART_BYTES // row_bytes)
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        yield some, reader.rows(some), index.slice(start, len(some))


def _schema(reader: FeatureReader, index: pa.Table) -> pa.Schema:
    """The row's number, the index, and the features as a tensor per row."""
    tensor = pa.fixed_shape_tensor(pa.from_numpy_dtype(reader.dtype), reader.shape[1:])
    return pa.schema([pa.field("row", pa.int64()), *_plain(index).schema, pa.field("features", tensor)])


def _plain(index: pa.Table) -> pa.Table:
    """The index without dictionaries, whose values other parts may not share."""
    fields = [
        pa.field(each.name, each.type.value_type) if pa.types.is_dictionary(each.type) else each
        for each in index.schema
    ]
    return index.cast(pa.schema(fields))


def _tables(
    reader: FeatureReader, rows: np.ndarray, index: pa.Table, schema: pa.Schema
) -> Iterator[pa.Table]:
    tensor = schema.field("features").type
    for numbers, features, of_index in _parts(reader, rows, index):
        flat = pa.array(features.reshape(-1))
        lists = pa.FixedSizeListArray.from_arrays(flat, math.prod(reader.shape[1:]))
        column = pa.ExtensionArray.from_storage(tensor, lists)
        yield pa.table([pa.array(numbers, pa.int64()), *_plain(of_index).columns, column], schema=schema)


def _write_parquet(target: Path, reader: FeatureReader, rows: np.ndarray, index: pa.Table) -> None:
    schema = _schema(reader, index)
    with pq.ParquetWriter(target, schema, compression="zstd", use_dictionary=index.column_names) as writer:
        for table in _tables(reader, rows, index, schema):
            writer.write_table(table)


def _write_arrow(target: Path, reader: FeatureReader, rows: np.ndarray, index: pa.Table) -> None:
    schema = _schema(reader, index)
    with pa.ipc.new_file(target, schema) as writer:
        for table in _tables(reader, rows, index, schema):
            writer.write_table(table)


def _write_webdataset(target: Path, reader: FeatureReader, rows: np.ndarray, index: pa.Table) -> None:
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for numbers, features, of_index in _parts(reader, rows, index):
            for number, row, entry in zip(numbers.tolist(), features, of_index.to_pylist(), strict=True):
                content = io.BytesIO()
                np.save(content, row)
                _add(tar, f"{number:09d}.npy", content.getvalue())
                described = json.dumps({"row": number, **entry}, default=str)
                _add(tar, f"{number:09d}.json", described.encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # of no date and no owner: equal rows are equal bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    # The module keeps every member, and a long file has too many.
    tar.members.clear()  # type: ignore[attr-defined]


Writer = Callable[[Path, FeatureReader, np.ndarray, pa.Table], None]
STREAMS: dict[str, Writer] = {".parquet": _write_parquet, ".arrow": _write_arrow, ".tar": _write_webdataset}
"""By suffix."""
