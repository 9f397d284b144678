"""The extents of rows in shard files: what is known of shard indexes, and runs of adjacent rows."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from storage.feature_store.layout import ArrayLayout
from storage.feature_store.shard_index import MISSING, ShardIndex


class Runs(NamedTuple):
    """Runs of requested rows that are adjacent both in one shard file and in the request.

    Run i is `length[i]` rows: in the request from `position[i]`, in the file of `shard[i]` from byte
    `offset[i]`.
    """

    position: np.ndarray
    length: np.ndarray
    shard: np.ndarray
    offset: np.ndarray


class ExtentTable:
    """Offset and length of every row of an array, filled in shard by shard as their indexes are read."""

    def __init__(self, layout: ArrayLayout) -> None:
        self.layout = layout
        # Only address space: pages of shards that are not read are never touched.
        slots = layout.n_shards * layout.rows_per_shard
        self.offsets = np.empty(slots, np.int64)
        self.lengths = np.empty(0 if layout.has_fixed_rows else slots, np.int64)
        self._known = np.zeros(layout.n_shards, bool)
        self._n_unknown = layout.n_shards
        self._lock = threading.Lock()

    def unknown_shards(self, indices: np.ndarray) -> list[int]:
        """The shards of the rows at `indices` whose indexes have not been set."""
        if not self._n_unknown:
            return []
        shards = indices // self.layout.rows_per_shard
        return [int(shard) for shard in np.unique(shards[~self._known[shards]])]

    def set(self, shard: int, index: ShardIndex | None) -> None:
        """Note a shard's index; None for a shard that was left out."""
        here = slice(shard * self.layout.rows_per_shard, (shard + 1) * self.layout.rows_per_shard)
        with self._lock:
            self.offsets[here] = MISSING if index is None else index.offsets
            if len(self.lengths):
                self.lengths[here] = MISSING if index is None else index.lengths
            self._n_unknown -= not self._known[shard]
            self._known[shard] = True

    def runs(self, indices: np.ndarray, positions: np.ndarray, max_rows: int) -> Runs:
        """Group rows that follow each other, in the request as in the file, into runs of at most `max_rows`.

        `indices` are present rows of a fixed size, `positions` (ascending) their places in the request. Where
        another writer has put rows of a shard in another order, each is a run of its own.
        """
        shards = indices // self.layout.rows_per_shard
        offsets = self.offsets[indices]
        follows = indices[1:] - indices[:-1] == 1
        if max_rows == 1 or not follows.any():
            return Runs(positions, np.ones_like(positions), shards, offsets)
        follows &= np.diff(offsets) == self.layout.row_bytes
        joined = follows & (np.diff(shards) == 0) & (np.diff(positions) == 1)
        starts = np.flatnonzero(np.concatenate(([True], ~joined)))
        counts = np.diff(np.append(starts, len(indices)))
        if len(counts) and counts.max() > max_rows:
            pieces = -(-counts // max_rows)
            within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
            starts = np.repeat(starts, pieces) + within * max_rows
            counts = np.minimum(np.repeat(counts, pieces) - within * max_rows, max_rows)
        return Runs(positions[starts], counts, shards[starts], offsets[starts])
