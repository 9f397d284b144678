"""The interface of all readers of a feature store, whatever tier they read from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from storage.errors import StorageError
from storage.feature_store.buffers import allocate_buffer
from storage.space import in_units

Tier = Literal["auto", "memory", "disk", "remote"]


class FeatureReader(ABC):
    """Random access to the rows of a feature store. `open_features` opens one; threads may share it.

    Attributes
    ----------
    tier
        Where rows are read from: `memory`, `disk` or `remote`.
    shape
        (N, *row shape).
    dtype
        Of the rows that `rows` returns.
    location
        The folder or URL that was opened.

    Examples
    --------
    >>> with open_features(features, "disk") as reader:
    ...     len(reader), reader.shape, reader.dtype.name
    ...     reader.rows([[3, 0]]).tolist()
    ...     reader.index["person_id"].to_pylist()
    (4, (4, 2), 'float16')
    [[[6.0, 7.0], [0.0, 1.0]]]
    ['7', '7', '9', None]
    """

    tier: Tier
    shape: tuple[int, ...]
    dtype: np.dtype
    location: str | None = None

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, read_index: Callable[[], pa.Table]) -> None:
        self.shape = shape
        self.dtype = dtype
        self._read_index = read_index

    @cached_property
    def index(self) -> pa.Table:
        """The table of `index.parquet`, read on first use. Raises StorageError if the file is missing."""
        return self._read_index()

    def __repr__(self) -> str:
        rows = " x ".join(map(str, self.shape[1:]))
        n_bytes = in_units(math.prod(self.shape) * self.dtype.itemsize)
        where = "" if self.location is None else f" at {self.location}"
        return f"<{type(self).__name__} of {len(self)} rows of {rows} {self.dtype}, {n_bytes}{where}>"

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, indices: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
        """Read rows by their numbers, in any order; repeats are allowed.

        Parameters
        ----------
        indices
            Integers in 0 .. N-1, of any shape. Negative ones do not count from the end.
        out
            C-contiguous memory of the result's shape and dtype, as `buffer` gives; None for a new array.

        Returns
        -------
        numpy.ndarray
            `out`, or the new array: (*indices.shape, *row shape).

        Raises
        ------
        IndexError
            An index is outside 0 .. N-1, or not an integer.
        StorageError
            `out` does not fit, or data is damaged or missing.
        """
        wanted = check_indices(indices, self.shape[0])
        out = _check_out(out, (*wanted.shape, *self.shape[1:]), self.dtype)
        if wanted.size:
            self._fill(wanted.reshape(-1), out.reshape(wanted.size, -1))
        return out

    def buffer(self, n_rows: int) -> np.ndarray:
        """Memory for `n_rows` rows, for `rows(..., out=...)`; copying into it is fastest."""
        return allocate_buffer((n_rows, *self.shape[1:]), self.dtype)

    @abstractmethod
    def _fill(self, indices: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` (n, numbers of a row) with the rows at `indices` (n,), int64 and valid."""

    def close(self) -> None:  # noqa: B027 - a tier may have nothing to release
        """Release files and threads; the reader cannot be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_indices(indices: ArrayLike, n_rows: int) -> np.ndarray:
    """`indices` as an int64 array. Raises IndexError when they are not integers in 0 .. n_rows-1."""
    array = np.asarray(indices)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise IndexError(f"row indices must be integers, not {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= n_rows:
        raise IndexError(f"row {low if low < 0 else high} is outside the store's rows 0 to {n_rows - 1}")
    return array.astype(np.int64, copy=False)


def _check_out(out: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous or not out.flags.writeable:
        raise StorageError(
            f"out is {out.dtype} {out.shape}; it must be writeable, C-contiguous {dtype} of shape {shape}"
        )
    return out


class MemoryReader(FeatureReader):
    """All rows in one array of this process."""

    tier: Tier = "memory"

    def __init__(self, array: np.ndarray, read_index: Callable[[], pa.Table]) -> None:
        super().__init__(array.shape, array.dtype, read_index)
        self.array = array
        self._flat = array.reshape(array.shape[0], math.prod(array.shape[1:]))

    def _fill(self, indices: np.ndarray, out: np.ndarray) -> None:
        # The indices are checked, and "clip" spares the copy that "raise" makes of its output.
        np.take(self._flat, indices, axis=0, out=out, mode="clip")
