"""Shard files on a local disk: which exist, their indexes, and one shard's rows."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from numcodecs.zstd import Zstd

from storage.descriptors import READING, read_at
from storage.errors import StorageError
from storage.feature_store.digests import ShardDigests, piece_rows
from storage.feature_store.layout import ArrayLayout
from storage.feature_store.new_files import write_new
from storage.feature_store.shard_index import MISSING, ShardIndex, crc32c, decode_index, encode_index
from storage.trust import Digested, stat_key

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


def open_shard(
    array: Path, layout: ArrayLayout, shard: int, file: Path | None = None
) -> tuple[int, ShardIndex] | None:
    """The descriptor of a shard's file, which the caller closes, and its index; `file` if it is elsewhere.

    None when the file does not exist and the array may leave shards out, as an array of fill values does.
    Raises StorageError when our own writer should have written it, and when the file is damaged.
    """
    file = file or array / layout.shard_key(shard)
    try:
        descriptor = os.open(file, READING)
    except FileNotFoundError as error:
        if layout.is_ours:
            raise missing_shard(str(array), layout, shard) from error
        return None
    try:
        file_bytes = os.fstat(descriptor).st_size
        start = max(0, file_bytes - layout.index_bytes) if layout.index_at_end else 0
        data = read_at(descriptor, min(layout.index_bytes, file_bytes), start)
        return descriptor, decode_index(data, layout, file_bytes, f"shard {shard} ({file})")
    except BaseException:
        os.close(descriptor)
        raise


def missing_shard(array: str, layout: ArrayLayout, shard: int) -> StorageError:
    """The error for a shard that our own writer has not written."""
    rows = layout.shard_rows(shard)
    return StorageError(
        f"{array} is unfinished: shard {shard} (rows {rows.start} to {rows.stop - 1}) is missing;"
        " rebuild its artifact"
    )


def read_shard(array: Path, layout: ArrayLayout, shard: int) -> np.ndarray:
    """All rows of one shard, in order, every CRC and length checked. Raises StorageError on damage."""
    rows = layout.shard_rows(shard)
    opened = open_shard(array, layout, shard)  # first, since metadata may claim any size
    out = np.full((len(rows), *layout.row_shape), layout.fill_value, layout.dtype)
    if opened is None:
        return out
    descriptor, index = opened
    flat = out.reshape(len(rows), -1).view(np.uint8)
    try:
        for slot in np.flatnonzero(index.offsets[: len(rows)] != MISSING):
            data = read_at(descriptor, int(index.lengths[slot]), int(index.offsets[slot]))
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
            raise StorageError(f"{where} is damaged: its CRC-32C does not match; rebuild its shard")
    if layout.compressed:
        try:
            data = Zstd().decode(data)
        except (RuntimeError, ValueError) as error:
            raise StorageError(f"{where} is damaged: {error}; rebuild its shard") from error
    if len(data) != out.nbytes:
        raise StorageError(
            f"{where} is damaged: {len(data)} bytes instead of {out.nbytes}; rebuild its shard"
        )
    out[:] = np.frombuffer(data, np.uint8)


def write_shard(file: Path, rows: np.ndarray, layout: ArrayLayout, *, flush: bool) -> ShardDigests:
    """Write a shard, C-contiguous (n, *row_shape), to a new file: rows in order, then the index.

    With `flush` it is on the disk on return. Returns its digests, which are those of `rows` and not of what
    the disk has. Raises FileExistsError when the file exists.
    """
    size = piece_rows(layout.rows_per_shard)
    hashers = [hashlib.sha256(rows[start : start + size].data) for start in range(0, len(rows), size)]
    pieces = tuple(hasher.hexdigest() for hasher in hashers)
    parts, lengths = _stored(rows, layout)
    missing = [MISSING] * (layout.rows_per_shard - len(rows))
    offsets = np.cumsum([0, *lengths[:-1]])
    index = encode_index(
        ShardIndex(np.array([*offsets, *missing], np.int64), np.array([*lengths, *missing], np.int64))
    )
    stat = write_new(file, [*parts, index], flush=flush)
    if layout.compressed or len(hashers) != 1:
        return ShardDigests(pieces=pieces)
    hashers[0].update(index)
    return ShardDigests(pieces=pieces, file=Digested(hashers[0].hexdigest(), stat_key(stat)))


def _stored(rows: np.ndarray, layout: ArrayLayout) -> tuple[list[bytes | memoryview], list[int]]:
    """What of the rows goes into the file, and the bytes that each row takes."""
    plain = rows.reshape(len(rows), -1).view(np.uint8)
    if not layout.compressed:
        return [plain.reshape(-1).data], [layout.row_bytes] * len(rows)
    codec = Zstd(level=ZSTD_LEVEL)
    frames = [bytes(codec.encode(row)) for row in plain]
    return [b"".join(frames)], [len(frame) for frame in frames]
