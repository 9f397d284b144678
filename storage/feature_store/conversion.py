"""Rows as the store's numbers; what does not fit into them is counted and refused."""

from __future__ import annotations

import numpy as np

from storage.errors import StorageError


def convert_rows(rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`rows` as a C-contiguous array of `dtype`, to be checked by `check_finite`.

    Raises StorageError when an integer dtype would change them.
    """
    if dtype.kind != "f" and rows.dtype != dtype:
        raise StorageError(f"rows of {rows.dtype} cannot be stored as {dtype}: convert them first")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype=dtype)


def check_finite(converted: np.ndarray, rows: np.ndarray, first_row: int) -> None:
    """Raise StorageError, with their number and the first row, when `rows` are not finite as `converted`."""
    dtype = converted.dtype
    if dtype.kind == "f" and converted.size and not _all_finite(converted):
        bad = ~np.isfinite(converted.reshape(len(converted), -1))
        overflowed = bad & np.isfinite(rows.reshape(len(rows), -1))
        raise StorageError(
            f"{int(bad.sum())} values are not finite as {dtype} ({int(overflowed.sum())} of them overflow its"
            f" largest, {np.finfo(dtype).max:g}), first in row {first_row + int(bad.any(axis=1).argmax())}:"
            " store float32, or look for diverged layers"
        )


def _all_finite(values: np.ndarray) -> bool:
    """Two passes of integer maxima: no temporary array, and the speed of memory also for float16.

    An infinity or NaN has all exponent bits set, so its bits are at least those of +inf or, with the sign, of
    -inf.
    """
    signed, unsigned = {2: (np.int16, np.uint16), 4: (np.int32, np.uint32)}[values.dtype.itemsize]
    infinity = np.array([np.inf, -np.inf], values.dtype).view(unsigned)
    return bool(
        values.view(signed).max() < int(infinity[0]) and values.view(unsigned).max() < int(infinity[1])
    )
