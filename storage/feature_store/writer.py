"""Writing a feature store: whole shards, each under a temporary name and then renamed.

Processes that write different shards need no coordination. A shard that exists is complete; that is the
resume.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import DTypeLike

from storage.errors import StorageError
from storage.feature_store.digests import (
    BLOCK_ROWS,
    ArrayDigests,
    content_digest,
    digest_pieces,
    piece_rows,
    read_digests,
    read_piece_file,
)
from storage.feature_store.layout import (
    ARRAY,
    DIGESTS_FILE,
    MARK,
    METADATA_FILE,
    ROWS_PER_SHARD,
    WORK_DIRECTORY,
    ArrayLayout,
    parse_layout,
)
from storage.feature_store.shard_files import list_shards, read_shard
from storage.feature_store.shard_index import MISSING, ShardIndex, encode_index
from storage.urls import local_path

Compression = Literal["none", "zstd"]

_DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.uint8))
_ZSTD_LEVEL = 1
_MAX_WRITE = 1 << 30
_MAX_FLUSHES = 2
"""Shards that may be on their way to the disk while the next is being written."""


def create_features(
    path: str | Path,
    n_rows: int,
    row_shape: Sequence[int],
    dtype: DTypeLike = np.float16,
    *,
    rows_per_shard: int = ROWS_PER_SHARD,
    compression: Compression = "none",
    attributes: Mapping[str, Any] | None = None,
    flush: bool = True,
) -> FeatureWriter:
    """Create the array `features`, (n_rows, *row_shape), in the Zarr group at `path`, or reopen it to go on.

    `dtype` is float16, float32 or uint8. `rows_per_shard` divides 256 or is a multiple of it. `attributes`
    (JSON) say what made the array and are part of its metadata. With `flush` each shard is on the disk before
    it gets its name. Other files may lie in `path`. Several processes may call this at once.

    Raises StorageError for a request that cannot be stored, and when `path` holds an array with other
    metadata.
    """
    shape = (int(n_rows), *(int(n) for n in row_shape))
    dtype = np.dtype(dtype)
    _check_request(shape, dtype, rows_per_shard)
    group = local_path(path)
    files = _metadata_files(shape, dtype, rows_per_shard, compression, attributes or {})
    (group / ARRAY).mkdir(parents=True, exist_ok=True)
    for name in (f"{ARRAY}/{METADATA_FILE}", METADATA_FILE):
        _write_or_compare(group / name, files[name])
    layout = parse_layout(json.loads(files[f"{ARRAY}/{METADATA_FILE}"]), str(group / ARRAY))
    return FeatureWriter(group, layout, flush)


class FeatureWriter:
    """Writes whole shards into one array. Made by `create_features`; also a context manager."""

    def __init__(self, path: Path, layout: ArrayLayout, flush: bool) -> None:
        self.path = path
        self.layout = layout
        self._flush = flush
        self._digester = ThreadPoolExecutor(1, thread_name_prefix="shard-digest")
        self._flusher = ThreadPoolExecutor(_MAX_FLUSHES, thread_name_prefix="shard-flush")
        self._flushes: deque[Future[None]] = deque()
        self._work = path / WORK_DIRECTORY
        for directory in (path, path / ARRAY, self._work):
            _remove_abandoned(directory)

    @property
    def complete_shards(self) -> tuple[int, ...]:
        """The shards that exist now, ascending: those that a resumed job need not make."""
        return list_shards(self.path / ARRAY, self.layout)

    def write(self, start_row: int, block: np.ndarray) -> None:
        """Write whole shards from `start_row`, a shard boundary; only the array's last shard may be short.

        `block` (rows, *row_shape) is converted to the array's dtype, and is the caller's again on return; the
        shard gets its name when it is on the disk, at the latest in `close`. A shard that exists is left as
        it is when its rows are the same. Raises StorageError when the block does not fit, a value is or
        becomes infinite or NaN (a float16 ends at 65504), or a shard exists with other rows.
        """
        rows_per_shard = self.layout.rows_per_shard
        stop_row = start_row + len(block)
        if block.shape[1:] != self.layout.row_shape:
            raise StorageError(
                f"rows of shape {block.shape[1:]} do not fit the rows {self.layout.row_shape} of {self.path}"
            )
        if not 0 <= start_row < stop_row <= self.layout.n_rows or start_row % rows_per_shard:
            raise StorageError(
                f"rows {start_row} to {stop_row} do not fit {self.path}: it has {self.layout.n_rows} rows,"
                f" and a block starts at a multiple of {rows_per_shard}"
            )
        if stop_row % rows_per_shard and stop_row != self.layout.n_rows:
            raise StorageError(
                f"rows {start_row} to {stop_row} end inside a shard of {rows_per_shard}: write whole shards"
            )
        for first in range(start_row, stop_row, rows_per_shard):
            rows = block[first - start_row : first - start_row + rows_per_shard]
            self._write_shard(first // rows_per_shard, convert_rows(rows, self.layout.dtype, first))

    def close(self) -> None:
        """Wait until every written shard exists; when all of the array do, finish it (`finish_features`)."""
        self._wait_for_flushes(0)
        self._stop()
        if len(self.complete_shards) == self.layout.n_shards:
            finish_features(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._stop()

    def _stop(self) -> None:
        self._digester.shutdown()
        self._flusher.shutdown()

    def _wait_for_flushes(self, at_most: int) -> None:
        """Wait until at most so many shards are on their way to the disk; raise what went wrong with others."""
        while len(self._flushes) > at_most:
            self._flushes.popleft().result()

    def _write_shard(self, shard: int, rows: np.ndarray) -> None:
        target = self.path / ARRAY / self.layout.shard_key(shard)
        if target.exists():
            self._compare(shard, rows)
            return
        self._wait_for_flushes(_MAX_FLUSHES - 1)
        self._work.mkdir(exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        digesting = self._digester.submit(digest_pieces, rows, piece_rows(self.layout.rows_per_shard))
        partial = self._work / _partial_name(f"shard-{shard}")
        try:
            _write_file(partial, _encode_shard(rows, self.layout))
            pieces = digesting.result()
            if (self.path / DIGESTS_FILE).exists() and pieces != _pieces_of(self.path, self.layout, shard):
                raise StorageError(
                    f"shard {shard} of {self.path} was made again with other rows than {DIGESTS_FILE} notes:"
                    " it is made from other inputs or by other code; make a new store"
                )
            _replace_text(_piece_file(self.path, shard), json.dumps(pieces))
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self._flushes.append(self._flusher.submit(self._name_shard, partial, target))

    def _name_shard(self, partial: Path, target: Path) -> None:
        if self._flush:
            _flush_file(partial)
        partial.rename(target)

    def _compare(self, shard: int, rows: np.ndarray) -> None:
        if digest_pieces(rows, piece_rows(self.layout.rows_per_shard)) != _pieces_of(
            self.path, self.layout, shard
        ):
            raise StorageError(
                f"shard {shard} of {self.path} exists with other rows; an existing shard is never rewritten:"
                " remove it first if it must be made again"
            )


def convert_rows(rows: np.ndarray, dtype: np.dtype, first_row: int) -> np.ndarray:
    """`rows` as a C-contiguous array of `dtype`.

    Raises StorageError, with their number and the first row, when values are not finite in `dtype`, or when
    an integer dtype would change them.
    """
    if dtype.kind != "f":
        if rows.dtype != dtype:
            raise StorageError(f"rows of {rows.dtype} cannot be stored as {dtype}: convert them first")
        return np.ascontiguousarray(rows)
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(rows, dtype=dtype)
    if converted.size and not _all_finite(converted):
        bad = ~np.isfinite(converted.reshape(len(converted), -1))
        overflowed = bad & np.isfinite(rows.reshape(len(rows), -1))
        raise StorageError(
            f"{int(bad.sum())} values are not finite as {dtype} ({int(overflowed.sum())} of them overflow its"
            f" largest, {np.finfo(dtype).max:g}), first in row {first_row + int(bad.any(axis=1).argmax())}:"
            " store float32, or look for diverged layers"
        )
    return converted


def finish_features(path: str | Path) -> str:
    """Write the digests of a store whose shards all exist, and return its content digest.

    Calling it again, also from several processes at once, changes nothing. Raises StorageError when shards
    are missing.
    """
    group = local_path(path)
    layout = read_layout(group)
    if not (group / DIGESTS_FILE).exists():
        missing = sorted(set(range(layout.n_shards)) - set(list_shards(group / ARRAY, layout)))
        if missing:
            raise StorageError(
                f"{group} is unfinished: {len(missing)} of {layout.n_shards} shards are missing,"
                f" first {missing[0]}"
            )
        _replace_text(group / DIGESTS_FILE, _collect_digests(group, layout).model_dump_json())
    shutil.rmtree(group / WORK_DIRECTORY, ignore_errors=True)  # another process may be removing it too
    return read_digests(group).content


def read_layout(group: Path) -> ArrayLayout:
    """The layout of the array in a local feature store. Raises StorageError when there is none."""
    file = group / ARRAY / METADATA_FILE
    try:
        return parse_layout(json.loads(file.read_bytes()), str(file))
    except FileNotFoundError as error:
        raise StorageError(f"{group} is no feature store: it has no {ARRAY}/{METADATA_FILE}") from error
    except json.JSONDecodeError as error:
        raise StorageError(f"{file} is damaged: {error}") from error


def _check_request(shape: tuple[int, ...], dtype: np.dtype, rows_per_shard: int) -> None:
    if dtype not in _DTYPES:
        raise StorageError(f"features cannot be stored as {dtype}: choose float16, float32 or uint8")
    if shape[0] < 0 or len(shape) < 2 or min(shape[1:]) < 1:
        raise StorageError(
            f"features of shape {shape} cannot be stored: rows need at least one axis, none of them empty"
        )
    if rows_per_shard < 1 or (BLOCK_ROWS % rows_per_shard and rows_per_shard % BLOCK_ROWS):
        raise StorageError(
            f"rows_per_shard is {rows_per_shard}: it must divide {BLOCK_ROWS} or be a multiple of it"
        )


def _metadata_files(
    shape: tuple[int, ...],
    dtype: np.dtype,
    rows_per_shard: int,
    compression: Compression,
    attributes: Mapping[str, Any],
) -> dict[str, bytes]:
    """The metadata as zarr-python writes it, by file name."""
    import zarr  # takes most of a second, and a process that only reads never needs it
    from zarr.codecs import ZstdCodec
    from zarr.core.buffer import Buffer
    from zarr.storage import MemoryStore

    files: dict[str, Buffer] = {}
    names = ("row", "channel", "y", "x") if len(shape) == 4 else None
    zarr.create_group(MemoryStore(files)).create_array(
        ARRAY,
        shape=shape,
        dtype=dtype,
        chunks=(1, *shape[1:]),
        shards=(rows_per_shard, *shape[1:]),
        compressors=[ZstdCodec(level=_ZSTD_LEVEL)] if compression == "zstd" else None,
        fill_value=0,
        dimension_names=names,
        attributes={MARK: {"version": 1}, **attributes},
        config={"write_empty_chunks": True},
    )
    return {name: buffer.to_bytes() for name, buffer in files.items()}


def _write_or_compare(file: Path, content: bytes) -> None:
    """Write a metadata file, or see that the one that exists says the same."""
    if not file.exists():
        _replace_text(file, content.decode())
        return
    try:
        there = json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise StorageError(f"{file} is damaged: {error}; remove {file.parent} to begin again") from error
    wanted = json.loads(content)
    different = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
    if different:
        name = different[0]
        raise StorageError(
            f"{file} exists with other metadata: its {name} is {there.get(name)}, not {wanted.get(name)};"
            " choose another path or remove it"
        )


def _encode_shard(rows: np.ndarray, layout: ArrayLayout) -> list[bytes | memoryview]:
    """The buffers that make up a shard file: rows in order, then the index."""
    offsets = np.full(layout.rows_per_shard, MISSING, np.int64)
    lengths = np.full(layout.rows_per_shard, MISSING, np.int64)
    body: list[bytes | memoryview]
    if layout.compressed:
        codec = Zstd(level=_ZSTD_LEVEL)
        body = [bytes(codec.encode(row)) for row in rows]
        lengths[: len(rows)] = [len(frame) for frame in body]
        offsets[: len(rows)] = np.cumsum(lengths[: len(rows)]) - lengths[: len(rows)]
    else:
        body = [rows.reshape(-1).view(np.uint8).data]
        lengths[: len(rows)] = layout.row_bytes
        offsets[: len(rows)] = np.arange(len(rows)) * layout.row_bytes
    return [*body, encode_index(ShardIndex(offsets, lengths))]


def _write_file(file: Path, buffers: Sequence[bytes | memoryview]) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        for buffer in buffers:
            rest = memoryview(buffer)
            while rest:
                rest = rest[os.write(descriptor, rest[:_MAX_WRITE]) :]
    finally:
        os.close(descriptor)


def _flush_file(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


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


def _collect_digests(group: Path, layout: ArrayLayout) -> ArrayDigests:
    pieces = [piece for shard in range(layout.n_shards) for piece in _pieces_of(group, layout, shard)]
    blocks = pieces if layout.rows_per_shard >= BLOCK_ROWS else _digest_blocks(group, layout)
    return ArrayDigests(
        piece_rows=piece_rows(layout.rows_per_shard),
        pieces=tuple(pieces),
        content=content_digest(layout.dtype, layout.shape, blocks),
    )


def _digest_blocks(group: Path, layout: ArrayLayout) -> list[str]:
    """Digests of blocks that span several small shards, which have to be read again."""
    per_block = BLOCK_ROWS // layout.rows_per_shard
    digests: list[str] = []
    for first in range(0, layout.n_shards, per_block):
        shards = range(first, min(first + per_block, layout.n_shards))
        rows = np.concatenate([read_shard(group / ARRAY, layout, shard) for shard in shards])
        digests.extend(digest_pieces(rows, BLOCK_ROWS))
    return digests


def _pieces_of(group: Path, layout: ArrayLayout, shard: int) -> tuple[str, ...]:
    """The digests of a shard's pieces: as its writer noted them, else of the rows that are there."""
    size = piece_rows(layout.rows_per_shard)
    if (group / DIGESTS_FILE).exists():
        per_shard = -(-layout.rows_per_shard // size)
        return read_digests(group).pieces[shard * per_shard : (shard + 1) * per_shard]
    noted = read_piece_file(_piece_file(group, shard))
    return noted or digest_pieces(read_shard(group / ARRAY, layout, shard), size)


def _piece_file(group: Path, shard: int) -> Path:
    return group / WORK_DIRECTORY / f"digests-{shard}.json"


def _partial_name(stem: str) -> str:
    return f"{stem}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.partial"


def _remove_abandoned(directory: Path) -> None:
    """Remove the unfinished files of processes of this host that are gone."""
    for file in directory.glob(f"*.{socket.gethostname()}.*.partial"):
        process = file.name.split(".")[-3]
        if not Path("/proc", process).exists():
            file.unlink(missing_ok=True)


def _replace_text(file: Path, text: str) -> None:
    partial = file.with_name(_partial_name(file.name))
    partial.write_text(text)
    partial.replace(file)
