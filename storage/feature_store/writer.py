"""Writing a feature store: whole shards, each under a temporary name and then renamed.

Processes that write different shards need no coordination. A resume keeps the shards that match the
digests that their writer recorded of the rows in memory.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from storage import durable
from storage.errors import StorageError
from storage.feature_store.buffers import allocate_buffer
from storage.feature_store.codecs import CODEC_FILE, RowCodec
from storage.feature_store.conversion import check_finite, convert_rows
from storage.feature_store.digests import ShardDigests, digest_pieces, read_digests
from storage.feature_store.finishing import finish_features, holds, note_file, pieces_of
from storage.feature_store.layout import (
    ARRAY,
    DIGESTS_FILE,
    METADATA_FILE,
    ROWS_PER_SHARD,
    WORK_DIRECTORY,
    ArrayLayout,
    parse_layout,
)
from storage.feature_store.metadata import Compression, check_request, metadata_files, write_or_compare
from storage.feature_store.shard_files import complete_shards, is_complete, write_shard
from storage.urls import local_path

log = logging.getLogger(__name__)

_SHARDS_BEHIND = 2
"""Shards that are on their way to the disk beside the one that is being written, at most."""
_THREADS = 2


def create_features(
    path: str | Path,
    n_rows: int,
    row_shape: Sequence[int],
    dtype: DTypeLike = np.float16,
    *,
    rows_per_shard: int = ROWS_PER_SHARD,
    compression: Compression = "none",
    attributes: Mapping[str, Any] | None = None,
    codec: RowCodec | None = None,
    flush: bool = True,
) -> FeatureWriter:
    """Create the array `features`, (n_rows, *row_shape), in the Zarr group at `path`, or reopen it to resume.

    `path` may hold other files. Several processes may call this at once, and write different shards.

    Parameters
    ----------
    path
        A local folder.
    n_rows, row_shape
        The shape of the array; every axis of a row has at least one number.
    dtype
        float16, float32 or uint8.
    rows_per_shard
        Rows of a file: divides 256 or is a multiple of it.
    compression
        `none`, or `zstd` by row.
    attributes
        JSON that says what made the array: part of its metadata.
    codec
        How rows of this shape and dtype are encoded; None stores them unchanged.
    flush
        Whether each shard is on the disk before it appears.

    Returns
    -------
    FeatureWriter
        To be closed, or used as a context manager.

    Raises
    ------
    StorageError
        The request cannot be stored, or `path` holds an array with other metadata.

    Examples
    --------
    >>> with create_features(work, n_rows=300, row_shape=(2,), dtype=np.float32) as writer:
    ...     writer.write(0, np.zeros((256, 2), np.float32))
    >>> with create_features(work, n_rows=300, row_shape=(2,), dtype=np.float32) as writer:  # resumes
    ...     writer.complete_shards
    ...     writer.write(256, np.ones((44, 2), np.float32))
    (0,)
    """
    shape = (int(n_rows), *(int(n) for n in row_shape))
    dtype = np.dtype(dtype)
    check_request(shape, dtype, rows_per_shard)
    if codec is not None:
        if (codec.row_shape, codec.dtype) != (shape[1:], dtype):
            raise StorageError(f"rows of {dtype} {shape[1:]} do not fit a codec of {codec.row_shape}")
        stored, dtype = codec.stored
        shape = (shape[0], *stored)
    group = local_path(path)
    files = metadata_files(shape, dtype, rows_per_shard, compression, attributes or {}, codec)
    durable.make_folder(group / ARRAY)
    for name in (f"{ARRAY}/{METADATA_FILE}", METADATA_FILE):
        write_or_compare(group / name, files[name])
    layout = parse_layout(json.loads(files[f"{ARRAY}/{METADATA_FILE}"]), str(group / ARRAY))
    # After the metadata, which refuses another codec: what is beside the array is what it was written with.
    if codec is not None and codec.axes is not None:
        durable.write(group / CODEC_FILE, codec.axes.file)
    return FeatureWriter(group, layout, flush, codec)


class FeatureWriter:
    """Writes whole shards into one array. `create_features` returns one; it is also a context manager.

    Attributes
    ----------
    path
        The store's folder.
    layout
        Shape and dtype of the rows as they are stored, and how they are divided into shards.
    codec
        How rows are encoded; None if they are stored unchanged.

    Examples
    --------
    >>> with create_features(work, n_rows=3, row_shape=(2,)) as writer:
    ...     writer.write(0, np.arange(6).reshape(3, 2))
    ...     writer.complete_shards
    (0,)
    >>> open_features(work).rows([2]).tolist()
    [[4.0, 5.0]]
    """

    def __init__(self, path: Path, layout: ArrayLayout, flush: bool, codec: RowCodec | None) -> None:
        self.path = path
        self.layout = layout
        self.codec = codec
        self._flush = flush
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="shard-write")
        self._pending: dict[int, Future[None]] = {}
        self._buffers: list[np.ndarray] = []
        self._held: set[int] = set()
        """Shards whose rows on the disk this writer has checked, or written itself."""
        self._work = path / WORK_DIRECTORY
        for directory in (path, path / ARRAY, self._work):
            durable.remove_abandoned(directory)
        self._drop_damaged_digests()

    @property
    def complete_shards(self) -> tuple[int, ...]:
        """The finished shards, ascending, which a resumed job can skip.

        A shard that another writer wrote is read once and checked against the digests that this other writer
        recorded of its rows in memory; it is removed if it does not match, or has no recorded digests.
        """
        self._wait_for_shards(0)
        complete = complete_shards(self.path / ARRAY, self.layout)
        unknown = [shard for shard in complete if shard not in self._held]
        held = self._pool.map(partial(holds, self.path, self.layout), unknown)
        for shard, is_sound in zip(unknown, held, strict=True):
            if is_sound:
                self._held.add(shard)
            else:
                file = self.path / ARRAY / self.layout.shard_key(shard)
                log.warning("%s does not have the rows that were written; it is rebuilt", file)
                file.unlink(missing_ok=True)
        return tuple(shard for shard in complete if shard in self._held)

    def write(self, start_row: int, block: np.ndarray) -> None:
        """Write whole shards; only the array's last shard may be short.

        A shard reaches the disk and appears while later ones are written. `complete_shards` and `close` wait
        for it, as does a `write` that is too far ahead. A shard that exists with the same rows is not written
        again.

        Parameters
        ----------
        start_row
            The first row of a shard.
        block
            (rows, *row_shape): converted to the array's dtype or by its codec. The caller may overwrite it
            on return.

        Raises
        ------
        StorageError
            The block does not fit, a value is or becomes infinite or NaN (a float16 ends at 65504), or a
            shard exists with other rows.
        OSError
            An earlier shard did not get to the disk.
        """
        self.write_stored(start_row, self.stored(block, start_row))

    def stored(self, rows: np.ndarray, first_row: int = 0) -> np.ndarray:
        """Rows (n, *row_shape) as this array stores them. Raises StorageError, as `write` does."""
        return rows if self.codec is None else self.codec.encode(rows, first_row)

    def write_stored(self, start_row: int, block: np.ndarray) -> None:
        """Like `write`, for rows that are encoded already."""
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
            self._write_shard(first // rows_per_shard, rows)

    def adopt(self, shard: int, file: Path, digests: ShardDigests) -> bool:
        """Make a shard a hard link to another store's file, which has the same rows in the same layout.

        `digests` are those of its rows, and of the file as it stands. What is left of a damaged shard goes.
        Returns False where the file system refuses, as between two disks.
        """
        target = self.path / ARRAY / self.layout.shard_key(shard)
        self._work.mkdir(exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        # A note that a power cut loses costs the shard, not its rows: whoever commits flushes the file.
        durable.write(note_file(self.path, shard), digests.model_dump_json(), lasting=False)
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(file)
        except OSError as error:
            log.info("rows are copied, because %s cannot be hard-linked: %s", file, error)
            return False
        self._held.add(shard)
        return True

    def close(self) -> None:
        """Wait for the shards that are being written; if every shard exists, finish the store."""
        try:
            self._wait_for_shards(0)
        finally:
            self._pool.shutdown()
        if len(complete_shards(self.path / ARRAY, self.layout)) == self.layout.n_shards:
            finish_features(self.path)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.layout.shape))
        return (
            f"<FeatureWriter of {shape} {self.layout.dtype} in {self.layout.n_shards} shards at {self.path}>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._pool.shutdown()

    def _drop_damaged_digests(self) -> None:
        """Digests that a power cut left without content are collected again when the store is finished."""
        try:
            read_digests(self.path)
        except StorageError as error:
            if (self.path / DIGESTS_FILE).exists():
                log.warning("%s", error)
                (self.path / DIGESTS_FILE).unlink(missing_ok=True)

    def _wait_for_shards(self, pending: int) -> None:
        """Wait until at most this many shards are being written."""
        while len(self._pending) > pending:
            shard = next(iter(self._pending))
            self._pending.pop(shard).result()
            self._held.add(shard)

    def _write_shard(self, shard: int, given: np.ndarray) -> None:
        rows = convert_rows(given, self.layout.dtype)
        check_finite(rows, given, shard * self.layout.rows_per_shard)
        self._wait_for_shards(0 if shard in self._pending else _SHARDS_BEHIND)
        if self._has(shard, rows):
            return
        # On pages of their own, which a direct write needs.
        shape = (self.layout.rows_per_shard, *self.layout.row_shape)
        buffer = self._buffers.pop() if self._buffers else allocate_buffer(shape, self.layout.dtype)
        np.copyto(buffer[: len(rows)], rows)
        self._pending[shard] = self._pool.submit(self._make_shard, shard, buffer[: len(rows)], buffer)

    def _has(self, shard: int, rows: np.ndarray) -> bool:
        """Whether the shard exists with these rows; one without recorded digests is rebuilt."""
        if not is_complete(self.path / ARRAY, self.layout, shard):
            return False
        noted = pieces_of(self.path, self.layout, shard)
        if noted is None:
            return False
        if noted != digest_pieces(rows, self.layout.rows_per_shard):
            raise StorageError(
                f"shard {shard} of {self.path} exists with other rows; an existing shard is never rewritten:"
                " to rebuild it, remove it first"
            )
        return shard in self._held or holds(self.path, self.layout, shard)

    def _make_shard(self, shard: int, rows: np.ndarray, buffer: np.ndarray) -> None:
        """Write a shard, note the digests of its rows, and make it visible; then its buffer is free."""
        file = self._work / durable.partial_name(f"shard-{shard}")
        target = self.path / ARRAY / self.layout.shard_key(shard)
        try:
            self._work.mkdir(exist_ok=True)
            digests = write_shard(file, rows, self.layout, flush=self._flush)
            if (self.path / DIGESTS_FILE).exists():
                self._require_noted(shard, digests.pieces)
            durable.write(note_file(self.path, shard), digests.model_dump_json(), lasting=self._flush)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
        except FileNotFoundError:
            # Another process made the same shard, then finished the store and cleared its work directory.
            if not (self.path / DIGESTS_FILE).exists():
                raise
            self._require_noted(shard, digest_pieces(rows, self.layout.rows_per_shard))
        finally:
            file.unlink(missing_ok=True)
            self._buffers.append(buffer)

    def _require_noted(self, shard: int, pieces: tuple[str, ...]) -> None:
        if pieces != pieces_of(self.path, self.layout, shard):
            raise StorageError(
                f"shard {shard} of {self.path} was rebuilt with other rows than {DIGESTS_FILE} records:"
                " it is made from other inputs or by other code; make a new store"
            )
