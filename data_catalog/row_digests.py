"""Digests over rows, whatever the layout of the table that holds them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def digest_rows(table: pa.Table) -> str:
    """SHA-256 over a table's rows in their order: names, types, nulls and values.

    Chunks, dictionaries and what lies under a null do not count.
    """
    total = hashlib.sha256(str(len(table)).encode())
    for name in sorted(table.column_names):
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        total.update(f"\0{name}\0{column.type}\0".encode())
        total.update(np.packbits(column.is_valid().to_numpy()).data)
        if pa.types.is_string(column.type):
            present = column.drop_null()
            total.update(_little_endian(pc.binary_length(present).to_numpy()))
            for chunk in present.cast(pa.large_string()).chunks:
                total.update(_characters(chunk))
        else:
            total.update(_little_endian(column.drop_null().to_numpy()))
    return total.hexdigest()


def _characters(chunk: pa.LargeStringArray) -> Any:
    """The text of an array without nulls, run together, without a copy."""
    _, offsets, text = chunk.buffers()
    if text is None or not len(chunk):
        return b""
    ends = np.frombuffer(offsets, np.int64)[[chunk.offset, chunk.offset + len(chunk)]]
    return text.slice(int(ends[0]), int(ends[1] - ends[0]))


def _little_endian(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data
