"""Writing a feature store: whole shards, each under a temporary name and then renamed.

Processes that write different shards need no coordination. A shard that exists is complete; that is the
resume.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from storage.errors import StorageError
from storage.feature_store.conversion import check_finite, convert_rows
from storage.feature_store.digests import ShardDigests, digest_pieces, piece_rows
from storage.feature_store.finishing import finish_features, note_file, pieces_of
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
from storage.feature_store.partial_files import (
    flush_or_remove,
    partial_name,
    remove_abandoned,
    replace_text,
)
from storage.feature_store.shard_files import complete_shards, is_complete, write_shard
from storage.feature_store.write_behind import WriteBehind
from storage.trust import stat_key
from storage.urls import local_path

_SHARDS_BEHIND = 2
"""Shards that are on their way to the disk beside the one that is being written, at most."""
_FLUSHES_AT_ONCE = 2


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
    (JSON) say what made the array and are part of its metadata. With `flush` all shards are on the disk
    before the store counts as finished; a shard that a power cut left incomplete is not taken for one. Other
    files may lie in `path`. Several processes may call this at once.

    Raises StorageError for a request that cannot be stored, and when `path` holds an array with other
    metadata.
    """
    shape = (int(n_rows), *(int(n) for n in row_shape))
    dtype = np.dtype(dtype)
    check_request(shape, dtype, rows_per_shard)
    group = local_path(path)
    files = metadata_files(shape, dtype, rows_per_shard, compression, attributes or {})
    (group / ARRAY).mkdir(parents=True, exist_ok=True)
    for name in (f"{ARRAY}/{METADATA_FILE}", METADATA_FILE):
        write_or_compare(group / name, files[name])
    layout = parse_layout(json.loads(files[f"{ARRAY}/{METADATA_FILE}"]), str(group / ARRAY))
    return FeatureWriter(group, layout, flush)


class FeatureWriter:
    """Writes whole shards into one array. Made by `create_features`; also a context manager."""

    def __init__(self, path: Path, layout: ArrayLayout, flush: bool) -> None:
        self.path = path
        self.layout = layout
        self._flush = flush
        self._behind = WriteBehind()
        self._finishing: dict[int, Future[None]] = {}
        self._flusher = ThreadPoolExecutor(_FLUSHES_AT_ONCE, thread_name_prefix="shard-flush")
        self._flushes: list[Future[None]] = []
        self._work = path / WORK_DIRECTORY
        for directory in (path, path / ARRAY, self._work):
            remove_abandoned(directory)

    @property
    def complete_shards(self) -> tuple[int, ...]:
        """The shards that exist whole, ascending: those that a resumed job need not make."""
        self._wait_for_shards(0)
        return complete_shards(self.path / ARRAY, self.layout)

    def write(self, start_row: int, block: np.ndarray) -> None:
        """Write whole shards from `start_row`, a shard boundary; only the array's last shard may be short.

        `block` (rows, *row_shape) is converted to the array's dtype, and is the caller's again on return.
        A shard reaches the disk and appears while later ones are written. `complete_shards` and `close` wait
        for it, as does a `write` that is too far ahead; they raise OSError when it did not get there. One
        that exists is left as it is when its rows are the same. Raises StorageError when the block does not
        fit, a value is or becomes infinite or NaN (a float16 ends at 65504), or a shard exists with other
        rows.
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
            self._write_shard(first // rows_per_shard, rows)

    def close(self) -> None:
        """End writing. Who closes when every shard exists also finishes the store (`finish_features`)."""
        try:
            self._wait_for_shards(0)
        finally:
            self._shut_down()
        for flush in self._flushes:
            flush.result()
        if len(self.complete_shards) == self.layout.n_shards:
            finish_features(self.path, flush=self._flush)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._shut_down()

    def _shut_down(self) -> None:
        self._behind.close()
        self._flusher.shutdown()

    def _wait_for_shards(self, pending: int) -> None:
        """Until at most so many shards are on their way."""
        while len(self._finishing) > pending:
            self._finishing.pop(next(iter(self._finishing))).result()

    def _write_shard(self, shard: int, given: np.ndarray) -> None:
        rows = convert_rows(given, self.layout.dtype)
        check_finite(rows, given, shard * self.layout.rows_per_shard)
        self._wait_for_shards(0 if shard in self._finishing else _SHARDS_BEHIND)
        if is_complete(self.path / ARRAY, self.layout, shard):
            self._compare(shard, rows)
            return
        self._work.mkdir(exist_ok=True)
        file = self._behind.create(self._work / partial_name(f"shard-{shard}"))
        try:
            digests = write_shard(file, rows, self.layout)
        except BaseException:
            file.abandon()
            raise
        self._finishing[shard] = file.close(
            lambda stat: self._finish_shard(shard, file.path, digests(stat_key(stat)))
        )

    def _finish_shard(self, shard: int, partial: Path, digests: ShardDigests) -> None:
        """Note the digests of a written shard, and make it visible."""
        target = self.path / ARRAY / self.layout.shard_key(shard)
        try:
            if (self.path / DIGESTS_FILE).exists():
                self._require_noted(shard, digests.pieces)
            replace_text(note_file(self.path, shard), digests.model_dump_json())
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.rename(target)
        except FileNotFoundError:
            # Another process made the same shard, then finished the store and cleared its work directory.
            if not (self.path / DIGESTS_FILE).exists():
                raise
            self._require_noted(shard, digests.pieces)
        if self._flush:
            # Now, while the next shards are made: at the end the disk would be all that there is to wait for.
            self._flushes.append(self._flusher.submit(flush_or_remove, target))

    def _require_noted(self, shard: int, pieces: tuple[str, ...]) -> None:
        if pieces != pieces_of(self.path, self.layout, shard):
            raise StorageError(
                f"shard {shard} of {self.path} was made again with other rows than {DIGESTS_FILE} notes:"
                " it is made from other inputs or by other code; make a new store"
            )

    def _compare(self, shard: int, rows: np.ndarray) -> None:
        pieces = digest_pieces(rows, piece_rows(self.layout.rows_per_shard))
        if pieces != pieces_of(self.path, self.layout, shard):
            raise StorageError(
                f"shard {shard} of {self.path} exists with other rows; an existing shard is never rewritten:"
                " remove it first if it must be made again"
            )
