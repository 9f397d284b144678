"""The index of a Zarr shard: for each of its chunks (offset, length), little-endian u64, then a CRC-32C.

Zarr v3 specification, codec `sharding_indexed`. A chunk that was left out has offset and length 2^64-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import google_crc32c
import numpy as np

from storage.errors import StorageError
from storage.feature_store.layout import ArrayLayout

MISSING = -1
"""Offset of a row that was left out, as int64: the bit pattern of 2^64-1."""


@dataclass(frozen=True)
class ShardIndex:
    """Where each row of one shard lies: bytes from the start of its file, int64, MISSING when left out."""

    offsets: np.ndarray
    lengths: np.ndarray


def crc32c(data: bytes | memoryview) -> int:
    return int(google_crc32c.value(bytes(data)))


def encode_index(index: ShardIndex) -> bytes:
    """The bytes of an index with its CRC-32C."""
    body = np.stack([index.offsets, index.lengths], axis=1).astype("<i8").tobytes()
    return body + crc32c(body).to_bytes(4, "little")


def decode_index(data: bytes, layout: ArrayLayout, file_bytes: int | None, where: str) -> ShardIndex:
    """Parse and check the index of a shard file of `file_bytes` bytes (None: unknown).

    Raises StorageError when it is truncated, its CRC does not hold, or a row lies outside the file.
    """
    if len(data) != layout.index_bytes:
        raise StorageError(
            f"{where} is truncated: {len(data)} of {layout.index_bytes} bytes of index; rebuild the shard"
        )
    body = data[: 16 * layout.rows_per_shard]
    if layout.index_has_crc and crc32c(body) != int.from_bytes(data[-4:], "little"):
        raise StorageError(f"{where} is damaged: the CRC-32C of its index does not match; rebuild the shard")
    pairs = np.frombuffer(body, "<i8").reshape(-1, 2)
    offsets, lengths = pairs[:, 0].copy(), pairs[:, 1].copy()
    _check_extents(offsets, lengths, layout, file_bytes, where)
    return ShardIndex(offsets, lengths)


def _check_extents(
    offsets: np.ndarray, lengths: np.ndarray, layout: ArrayLayout, file_bytes: int | None, where: str
) -> None:
    present = (offsets != MISSING) | (lengths != MISSING)
    wrong = present & ((offsets < 0) | (lengths < 0))
    if layout.has_fixed_rows:
        wrong |= present & (lengths != layout.row_bytes)
    if file_bytes is not None:
        rows_end = file_bytes - (layout.index_bytes if layout.index_at_end else 0)
        wrong |= present & (lengths > rows_end - offsets)
    if wrong.any():
        slot = int(np.flatnonzero(wrong)[0])
        raise StorageError(
            f"{where} is damaged or truncated: its row {slot} should lie at byte {offsets[slot]},"
            f" {lengths[slot]} bytes long, in a file of {file_bytes} bytes; rebuild the shard"
        )
