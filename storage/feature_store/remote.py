"""Ranged requests to a store behind an fsspec URL, many at once, with the shard indexes kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem

from storage.errors import StorageError
from storage.feature_store.extents import ExtentTable
from storage.feature_store.layout import ArrayLayout
from storage.feature_store.reader import FeatureReader, Tier
from storage.feature_store.shard_files import decode_row, missing_shard
from storage.feature_store.shard_index import MISSING, ShardIndex, decode_index
from storage.urls import join

_MAX_REQUEST = 4 << 20
REQUESTS_AT_ONCE = 128
"""A batch is one round of requests: what a batch waits for is one round trip, not a hundred."""


class RemoteReader(FeatureReader):
    """Reads rows of a directly readable array at `array`, a path on `system`."""

    tier: Tier = "remote"

    def __init__(
        self,
        system: AbstractFileSystem,
        array: str,
        layout: ArrayLayout,
        read_index: Callable[[], pa.Table],
    ) -> None:
        super().__init__(layout.shape, layout.dtype, read_index)
        self._system = system
        self._array = array
        self._layout = layout
        self._extents = ExtentTable(layout)
        self._loading = threading.Lock()

    def _fill(self, indices: np.ndarray, out: np.ndarray) -> None:
        # Each row is asked for once, and in the order of the files, so that neighbours share a request.
        rows, inverse = np.unique(indices, return_inverse=True)
        self._load_indexes(rows)
        present = self._extents.offsets[rows] != MISSING
        out[~present[inverse]] = self._layout.fill_value
        target = out.reshape(len(indices), -1).view(np.uint8)
        places = _places(inverse, len(rows))
        if self._layout.has_fixed_rows:
            self._fill_raw(rows[present], [places[i] for i in np.flatnonzero(present)], target)
        else:
            self._fill_encoded(rows[present], [places[i] for i in np.flatnonzero(present)], target)

    def _fill_raw(self, rows: np.ndarray, places: Sequence[np.ndarray], target: np.ndarray) -> None:
        if not len(rows):
            return
        row_bytes = self._layout.row_bytes
        runs = self._extents.runs(rows, np.arange(len(rows)), max(1, _MAX_REQUEST // row_bytes))
        blocks = self._request(runs.shard.tolist(), runs.offset.tolist(), (runs.length * row_bytes).tolist())
        for position, length, block in zip(runs.position.tolist(), runs.length.tolist(), blocks, strict=True):
            found = np.frombuffer(block, np.uint8).reshape(length, row_bytes)
            for i in range(length):
                target[places[position + i]] = found[i]

    def _fill_encoded(self, rows: np.ndarray, places: Sequence[np.ndarray], target: np.ndarray) -> None:
        shards = rows // self._layout.rows_per_shard
        offsets, lengths = self._extents.offsets[rows], self._extents.lengths[rows]
        blocks = self._request(shards.tolist(), offsets.tolist(), lengths.tolist())
        for row, place, block in zip(rows.tolist(), places, blocks, strict=True):
            decode_row(block, target[place[0]], self._layout, f"row {row} of {self._array}")
            target[place[1:]] = target[place[0]]

    def _request(self, shards: Sequence[int], offsets: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        paths = [self._path(shard) for shard in shards]
        stops = [offset + length for offset, length in zip(offsets, lengths, strict=True)]
        blocks = []
        for path, offset, length, block in zip(
            paths, offsets, lengths, fetch(self._system, paths, offsets, stops), strict=True
        ):
            if isinstance(block, Exception):
                raise StorageError(f"{path} cannot be read at byte {offset}: {block}") from block
            if len(block) != length:
                raise StorageError(
                    f"{path} gave {len(block)} bytes instead of {length} from byte {offset}: it is truncated,"
                    " or the server does not support ranges"
                )
            blocks.append(block)
        return blocks

    def _load_indexes(self, rows: np.ndarray) -> None:
        with self._loading:
            shards = self._extents.unknown_shards(rows)
            paths = [self._path(shard) for shard in shards]
            n_bytes = self._layout.index_bytes
            start, stop = (-n_bytes, None) if self._layout.index_at_end else (0, n_bytes)
            found = fetch(self._system, paths, [start] * len(paths), [stop] * len(paths))
            for shard, path, data in zip(shards, paths, found, strict=True):
                self._extents.set(shard, self._decode_index(shard, path, data))

    def _decode_index(self, shard: int, path: str, data: bytes | Exception) -> ShardIndex | None:
        if isinstance(data, FileNotFoundError):
            if self._layout.is_ours:
                raise missing_shard(self._array, self._layout, shard) from data
            return None
        if isinstance(data, Exception):
            raise StorageError(f"{path} cannot be read: {data}") from data
        return decode_index(data, self._layout, None, f"shard {shard} ({path})")

    def _path(self, shard: int) -> str:
        return join(self._array, self._layout.shard_key(shard))


def fetch(
    system: AbstractFileSystem, paths: list[str], starts: Sequence[int | None], stops: Sequence[int | None]
) -> list[bytes | Exception]:
    """Ranges of files, all at once where the file system can; an exception stands where one failed."""
    if not paths:
        return []
    at_once = {"batch_size": REQUESTS_AT_ONCE} if system.async_impl else {}
    return list(system.cat_ranges(paths, list(starts), list(stops), on_error="return", **at_once))


def _places(inverse: np.ndarray, n_rows: int) -> list[np.ndarray]:
    """For each distinct row, the places in the request that ask for it."""
    order = np.argsort(inverse, kind="stable")
    return np.split(order, np.cumsum(np.bincount(inverse, minlength=n_rows))[:-1])
