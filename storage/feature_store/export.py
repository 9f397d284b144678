"""Export chosen rows of a feature store and their index to one file for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike
from safetensors.numpy import save_file

from storage.durable import abandoned, whole_file
from storage.errors import StorageError
from storage.feature_store.export_streams import STREAMS
from storage.feature_store.reader import FeatureReader, check_indices

FORMATS = (".npz", ".safetensors", *STREAMS)


def export_rows(reader: FeatureReader, indices: ArrayLike, target: str | Path) -> None:
    """Write chosen rows and their index to one file: whole or not at all, and on the disk on return.

    Parameters
    ----------
    reader
        The store.
    indices
        (n,): the rows.
    target
        A file whose suffix says the format. `.npz` and `.safetensors` hold `features` (n, *row shape) and
        `row` (n,) int64, and are made in memory. In `.npz` each column of the index is an array (n,) of its
        own, with `<column>_is_null` (n,) beside a column that has nulls; in `.safetensors` the index is JSON
        in the metadata's `index`, one object per row.

        `.parquet`, `.arrow` and `.tar` are written in parts of 64 MiB, however many rows there are. The first
        two are tables with the columns of the index and `features`, a tensor of the row shape per row
        (`arrow.fixed_shape_tensor`; other readers see lists of fixed size, in C order). `.tar` is a shard of
        WebDataset: of each row `ROW.npy` and `ROW.json`, its entry of the index.

    Raises
    ------
    IndexError
        A row is outside the store.
    StorageError
        The suffix is another, or the index has another length.

    Examples
    --------
    >>> with open_features(features) as reader:
    ...     export_rows(reader, [0, 3], work / "two.npz")
    >>> with np.load(work / "two.npz") as exported:
    ...     exported["row"].tolist(), exported["person_id"].tolist(), exported["person_id_is_null"].tolist()
    ([0, 3], ['7', ''], [False, True])
    """
    target = Path(target)
    if target.suffix not in FORMATS:
        raise StorageError(f"{target} does not end in {' or '.join(FORMATS)}: choose one of these formats")
    rows = check_indices(indices, reader.shape[0]).reshape(-1)
    index = _rows_of_index(reader, rows)
    for left in abandoned(target.parent, target.name):
        left.unlink(missing_ok=True)
    with whole_file(target) as partial:
        if target.suffix in STREAMS:
            STREAMS[target.suffix](partial, reader, rows, index)
        elif target.suffix == ".npz":
            with partial.open("wb") as file:
                np.savez(file, features=reader.rows(rows), row=rows, **_columns(index))  # type: ignore[arg-type]
        else:
            arrays = {"features": reader.rows(rows), "row": rows}
            save_file(arrays, partial, metadata={"index": json.dumps(index.to_pylist(), default=str)})


def _rows_of_index(reader: FeatureReader, rows: np.ndarray) -> pa.Table:
    """The columns of the index, which another program may have written, without the row numbers."""
    index = reader.index
    if len(index) != reader.shape[0]:
        raise StorageError(
            f"the index has {len(index)} rows, the array {reader.shape[0]}: it belongs to another array"
        )
    return index.select([name for name in index.column_names if name != "row"]).take(pa.array(rows))


def _columns(index: pa.Table) -> dict[str, np.ndarray]:
    """The columns as arrays that NumPy loads without pickle; a null is empty or zero, and masked."""
    columns: dict[str, np.ndarray] = {}
    for name, column in zip(index.column_names, index.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if column.null_count:
            columns[f"{name}_is_null"] = pc.is_null(column).to_numpy()
            empty = pa.scalar("") if pa.types.is_string(column.type) else pa.scalar(0)
            column = pc.fill_null(column, empty.cast(column.type))
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        columns[name] = np.asarray(column.to_pylist(), np.str_) if is_text else column.to_numpy()
    return columns
