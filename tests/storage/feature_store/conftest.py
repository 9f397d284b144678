"""A small store on disk, with rows that are easy to tell apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage.feature_store import create_features, write_index

ROW_SHAPE = (4, 3, 2)


@pytest.fixture
def tmp_path(on_disk: Path) -> Path:
    return on_disk


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


@pytest.fixture
def make_rows() -> Callable[..., np.ndarray]:
    def make(n_rows: int, dtype: str = "float16", row_shape: tuple[int, ...] = ROW_SHAPE) -> np.ndarray:
        return (np.random.default_rng(n_rows).standard_normal((n_rows, *row_shape)) * 50).astype(dtype)

    return make


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Path]:
    def make(rows: np.ndarray, name: str = "store", **options: Any) -> Path:
        path = tmp_path / name
        with create_features(path, len(rows), rows.shape[1:], rows.dtype, **options) as writer:
            writer.write(0, rows)
        write_index(path, make_index(len(rows)))
        return path

    return make


def make_index(n_rows: int) -> pa.Table:
    """Five rows per person of dataset `a`; every seventh row is of an unknown person."""
    columns: dict[str, Any] = {
        "row": range(n_rows),
        "box_id": [f"box{row}" for row in range(n_rows)],
        "image_id": [f"image{row // 3}" for row in range(n_rows)],
        "person_id": [None if row % 7 == 0 else f"person{row // 5}" for row in range(n_rows)],
        "dataset": ["a"] * n_rows,
        "split": ["train"] * n_rows,
        **{name: [float(row) for row in range(n_rows)] for name in ("x1", "y1", "x2", "y2")},
        "view": ["as_is"] * n_rows,
    }
    return pa.table({name: pa.array(list(columns[name]), kind) for name, kind in INDEX_COLUMNS.items()})
