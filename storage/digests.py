"""Content digests: over what a thing means, not over how its bytes lie on disk.

Canonical JSON for recipes, named tensors for weights, canonical rows for tables. All are SHA-256, in hex.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import StorageError

_BLOCK = 1 << 20


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no white space and no NaN: equal values give equal bytes.

    Raises ValueError for NaN and infinities, TypeError for what JSON cannot say.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def digest_json(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_safetensors(path: Path) -> str:
    """Digest of the named tensors in a safetensors file: name, dtype, shape and bytes, in the order of names.

    The header's order, its padding and its `__metadata__` are layout and do not count.
    Raises StorageError when the file is not safetensors.
    """
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            (header_size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_size))
            start = 8 + header_size
            for name in sorted(header.keys() - {"__metadata__"}):
                entry = header[name]
                first, last = entry["data_offsets"]
                hasher.update(canonical_json([name, entry["dtype"], entry["shape"]]))
                file.seek(start + first)
                remaining = last - first
                while remaining:
                    block = file.read(min(remaining, _BLOCK))
                    if not block:
                        raise StorageError(f"{path}: truncated inside tensor {name!r}")
                    hasher.update(block)
                    remaining -= len(block)
    except (struct.error, ValueError, KeyError, TypeError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} is not a safetensors file: {error}") from error
    return hasher.hexdigest()


def digest_table(table: pa.Table) -> str:
    """Digest of a table's rows in their order, columns by name.

    Chunks, dictionary encoding, the values that lie under nulls and schema metadata do not count.
    """
    hasher = hashlib.sha256()
    hasher.update(canonical_json([table.num_rows]))
    for name in sorted(table.column_names):
        _update_with_column(hasher, name, table.column(name))
    return hasher.hexdigest()


def digest_parts(parts: Mapping[str, str]) -> str:
    """One digest over named digests."""
    return digest_json(dict(parts))


def _update_with_column(hasher: Any, name: str, column: pa.ChunkedArray) -> None:
    plain = column.type
    if pa.types.is_dictionary(plain):
        plain = plain.value_type
        column = column.cast(plain)
    if pa.types.is_fixed_size_list(plain):
        hasher.update(canonical_json([name, "list", plain.list_size, column.null_count]))
        flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks], type=plain.value_type)
        _update_with_column(hasher, f"{name}[]", flat)
        return
    if pa.types.is_string(plain) or pa.types.is_large_string(plain):
        hasher.update(canonical_json([name, "string"]))
        hasher.update(_numbers(pc.fill_null(pc.binary_length(column), -1), np.int64))
        for chunk in column.cast(pa.large_string()).chunks:
            hasher.update(_text_bytes(chunk.drop_null()))
        return
    hasher.update(canonical_json([name, str(plain)]))
    hasher.update(_numbers(pc.is_valid(column), np.uint8))
    zero = pa.scalar(0).cast(plain) if not pa.types.is_boolean(plain) else pa.scalar(False)
    dtype = np.uint8 if pa.types.is_boolean(plain) else plain.to_pandas_dtype()
    hasher.update(_numbers(pc.fill_null(column, zero), dtype))


def _text_bytes(array: pa.LargeStringArray) -> bytes | pa.Buffer:
    """The text of an array without nulls, run together."""
    _, offsets, text = array.buffers()
    if not len(array) or text is None:
        return b""
    bounds = np.frombuffer(offsets, np.int64)
    first, last = int(bounds[array.offset]), int(bounds[array.offset + len(array)])
    return text.slice(first, last - first)


def _numbers(column: pa.ChunkedArray, dtype: Any) -> bytes:
    return np.ascontiguousarray(column.to_numpy(), dtype=dtype).tobytes()
