"""`index.parquet`: what each row of a feature store is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import StorageError
from storage.feature_store.layout import INDEX_FILE

INDEX_COLUMNS = {
    "row": pa.int64(),
    "box_id": pa.string(),
    "image_id": pa.string(),
    "person_id": pa.string(),
    "dataset": pa.string(),
    "split": pa.string(),
    "x1": pa.float32(),
    "y1": pa.float32(),
    "x2": pa.float32(),
    "y2": pa.float32(),
    "view": pa.string(),
}
"""The columns that an index has; x1 .. y2 are the ROI in original pixels, clipped to the image.

`view` is the transform of the box (as it is, mirrored, jittered ...). `person_id`
is null where the identity is unknown. Further columns are allowed.
"""


def write_index(path: str | Path, table: pa.Table) -> None:
    """Write the table that says what each row is; it needs a column `row` that counts 0, 1, 2, ...

    Written under a temporary name and renamed, so that a reader never sees half a table.
    Raises StorageError when rows are missing or out of order.
    """
    if "row" not in table.column_names:
        raise StorageError(f"the index of {path} needs a column 'row'; it has {table.column_names}")
    rows = table.column("row").to_numpy()
    wrong = np.flatnonzero(rows != np.arange(len(rows)))
    if len(wrong):
        at = int(wrong[0])
        raise StorageError(f"the index of {path} must count its rows 0, 1, 2, ...; at {at} it has {rows[at]}")
    target = Path(path) / INDEX_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{INDEX_FILE}.{os.getpid()}.partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(target)
