"""Values as the datasets' authors nest them in their .mat files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HEADER = b"MATLAB 5.0 MAT-file, drawn scenes"


def write_mat(path: Path, key: str, value: np.ndarray) -> None:
    """One variable in a level 5 file; the same value gives the same bytes."""
    from scipy.io import savemat

    savemat(path, {key: value}, oned_as="row")
    with path.open("r+b") as file:  # SciPy writes the time of day there
        file.write(HEADER.ljust(116))


def cells(values: Iterable[Any]) -> np.ndarray:
    """An (n, 1) cell array."""
    listed = list(values)
    array = np.empty((len(listed), 1), dtype=object)
    for row, value in enumerate(listed):
        array[row, 0] = value
    return array


def structs(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """A (1, n) struct array."""
    listed = list(rows)
    array = np.empty((1, len(listed)), dtype=[(field, object) for field in fields])
    for column, row in enumerate(listed):
        array[0, column] = tuple(row[field] for field in fields)
    return array
