"""Holding a feature store to its digests, and making only the damaged shards again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from storage.errors import StorageError
from storage.feature_store.digests import BLOCK_ROWS, content_digest, digest_pieces, piece_rows, read_digests
from storage.feature_store.finishing import pieces_of
from storage.feature_store.layout import ARRAY, DIGESTS_FILE, ArrayLayout
from storage.feature_store.metadata import read_layout
from storage.feature_store.shard_files import read_shard
from storage.feature_store.writer import FeatureWriter
from storage.urls import local_path


@dataclass(frozen=True)
class DamagedShard:
    """A shard that does not hold to its digests, its rows, and why."""

    shard: int
    rows: range
    reason: str


def verify_features(
    path: str | Path, *, threads: int = 2, progress: Callable[[int, int], None] | None = None
) -> list[DamagedShard]:
    """Read every shard of a finished store and compare it with its digests; returns the damaged ones.

    `threads` shards are in memory at once; `progress` is called with (shards done, shards).
    Raises StorageError when the store is unfinished, or its metadata or its digests are damaged.
    """
    group = local_path(path)
    layout = read_layout(group)
    digests = read_digests(group)
    if digests.piece_rows == BLOCK_ROWS and digests.content != content_digest(
        layout.dtype, layout.shape, digests.pieces
    ):
        raise StorageError(f"{group / DIGESTS_FILE} is damaged: its digests do not make its content digest")
    damaged = []
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        found = pool.map(partial(_check_shard, group, layout), range(layout.n_shards))
        for shard, reason in enumerate(found):
            if reason:
                damaged.append(DamagedShard(shard, layout.shard_rows(shard), reason))
            if progress:
                progress(shard + 1, layout.n_shards)
    return damaged


def remove_shards(path: str | Path, shards: Iterable[int]) -> None:
    """Remove shards, so that whatever made the store makes just these again when it is resumed."""
    group = local_path(path)
    layout = read_layout(group)
    for shard in shards:
        (group / ARRAY / layout.shard_key(shard)).unlink(missing_ok=True)


def remake_shards(path: str | Path, shards: Iterable[int], make_rows: Callable[[range], np.ndarray]) -> None:
    """Replace shards by what `make_rows` returns for their rows: an array (rows, *row shape).

    Raises StorageError when the new rows do not have the digest that is noted for the shard; it is missing
    then.
    """
    group = local_path(path)
    wanted = sorted(set(shards))
    with FeatureWriter(group, read_layout(group), flush=True) as writer:
        for shard in wanted:
            rows = writer.layout.shard_rows(shard)
            made = make_rows(rows)
            remove_shards(group, [shard])
            writer.write(rows.start, made)


def _check_shard(group: Path, layout: ArrayLayout, shard: int) -> str | None:
    """What is wrong with a shard, or None."""
    file = group / ARRAY / layout.shard_key(shard)
    try:
        rows = read_shard(group / ARRAY, layout, shard)
    except (StorageError, OSError) as error:
        return str(error)
    size = piece_rows(layout.rows_per_shard)
    if digest_pieces(rows, size) != pieces_of(group, layout, shard):
        return f"shard {shard} ({file}) is damaged: its rows do not have the digest that is noted for them"
    return None
