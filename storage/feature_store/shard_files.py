"""Shard files on a local disk: which exist, their indexes, and one shard's rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numcodecs.zstd import Zstd

from storage.errors import StorageError
from storage.feature_store.digests import ShardDigests, piece_rows
from storage.feature_store.layout import ArrayLayout
from storage.feature_store.shard_index import MISSING, ShardIndex, crc32c, decode_index, encode_index
from storage.feature_store.write_behind import FileBehind, Hasher
from storage.trust import Digested

ZSTD_LEVEL = 1


def complete_shards(array: Path, layout: ArrayLayout) -> tuple[int, ...]:
    """The shards that exist whole, ascending."""
    return tuple(shard for shard in range(layout.n_shards) if is_complete(array, layout, shard))


def is_complete(array: Path, layout: ArrayLayout, shard: int) -> bool:
    """True when a shard's file exists with a sound index, which its writer wrote last.

    Its name says as much after a kill, but not after a power cut: a rename may outlive the bytes.
    """
    try:
        opened = open_shard(array, layout, shard)
    except StorageError:
        return False
    if opened:
        os.close(opened[0])
    return opened is not None


def open_shard(array: Path, layout: ArrayLayout, shard: int) -> tuple[int, ShardIndex] | None:
    """The descriptor of a shard's file, which the caller closes, and its index.

    None when the file does not exist and the array may leave shards out, as an array of fill values does.
    Raises StorageError when our own writer should have written it, and when the file is damaged.
    """
    file = array / layout.shard_key(shard)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if layout.is_ours:
            raise missing_shard(str(array), layout, shard) from error
        return None
    try:
        file_bytes = os.fstat(descriptor).st_size
        start = max(0, file_bytes - layout.index_bytes) if layout.index_at_end else 0
        data = os.pread(descriptor, layout.index_bytes, start)
        return descriptor, decode_index(data, layout, file_bytes, f"shard {shard} ({file})")
    except BaseException:
        os.close(descriptor)
        raise


def missing_shard(array: str, layout: ArrayLayout, shard: int) -> StorageError:
    """The error for a shard that our own writer has not written."""
    rows = layout.shard_rows(shard)
    return StorageError(
        f"{array} is unfinished: shard {shard} (rows {rows.start} to {rows.stop - 1}) is missing;"
        " run again what makes it"
    )


def read_shard(array: Path, layout: ArrayLayout, shard: int) -> np.ndarray:
    """All rows of one shard, in order, every CRC and length checked. Raises StorageError on damage."""
    rows = layout.shard_rows(shard)
    out = np.full((len(rows), *layout.row_shape), layout.fill_value, layout.dtype)
    opened = open_shard(array, layout, shard)
    if opened is None:
        return out
    descriptor, index = opened
    flat = out.reshape(len(rows), -1).view(np.uint8)
    try:
        for slot in np.flatnonzero(index.offsets[: len(rows)] != MISSING):
            data = os.pread(descriptor, int(index.lengths[slot]), int(index.offsets[slot]))
            decode_row(data, flat[slot], layout, f"row {rows[slot]} of {array}")
    finally:
        os.close(descriptor)
    return out


def decode_row(data: bytes, out: np.ndarray, layout: ArrayLayout, where: str) -> None:
    """Decode one stored row into `out`, its bytes as uint8. Raises StorageError on damage.

    Where rows have a CRC-32C it is checked, which costs little of the time that reading takes.
    """
    if layout.rows_have_crc:
        data, crc = data[:-4], data[-4:]
        if crc32c(data) != int.from_bytes(crc, "little"):
            raise StorageError(f"{where} is damaged: its CRC-32C does not hold; re-make its shard")
    if layout.compressed:
        try:
            data = Zstd().decode(data)
        except (RuntimeError, ValueError) as error:
            raise StorageError(f"{where} is damaged: {error}; re-make its shard") from error
    if len(data) != out.nbytes:
        raise StorageError(
            f"{where} is damaged: {len(data)} bytes instead of {out.nbytes}; re-make its shard"
        )
    out[:] = np.frombuffer(data, np.uint8)


def write_shard(
    file: FileBehind, rows: np.ndarray, layout: ArrayLayout
) -> Callable[[list[int]], ShardDigests]:
    """Append a shard, C-contiguous (n, *row_shape), to its new file: rows in order, then the index.

    Returns what gives its digests when the file is closed, from the file's `stat_key` of then.
    """
    size = piece_rows(layout.rows_per_shard)
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    hashers = [hashlib.sha256() for _ in pieces]
    lengths = [
        length
        for piece, hasher in zip(pieces, hashers, strict=True)
        for length in _append(file, piece, hasher, layout)
    ]
    missing = [MISSING] * (layout.rows_per_shard - len(rows))
    offsets = np.cumsum([0, *lengths[:-1]])
    index = encode_index(
        ShardIndex(np.array([*offsets, *missing], np.int64), np.array([*lengths, *missing], np.int64))
    )
    file.write(index)

    def digests(stat: list[int]) -> ShardDigests:
        of_pieces = tuple(hasher.hexdigest() for hasher in hashers)
        if layout.compressed or len(hashers) != 1:
            return ShardDigests(pieces=of_pieces)
        whole = hashers[0].copy()
        whole.update(index)
        return ShardDigests(pieces=of_pieces, file=Digested(whole.hexdigest(), stat))

    return digests


def _append(file: FileBehind, rows: np.ndarray, hasher: Hasher, layout: ArrayLayout) -> list[int]:
    """The bytes that each row took."""
    plain = rows.reshape(-1).view(np.uint8)
    if not layout.compressed:
        file.write(plain, hasher)
        return [layout.row_bytes] * len(rows)
    hasher.update(plain.data)
    codec = Zstd(level=ZSTD_LEVEL)
    frames = [bytes(codec.encode(row)) for row in rows]
    for frame in frames:
        file.write(frame)
    return [len(frame) for frame in frames]
