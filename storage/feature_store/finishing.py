"""Finishing a feature store: the digests that its writers noted, combined into the content digest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from storage.errors import StorageError
from storage.feature_store.digests import (
    BLOCK_ROWS,
    ArrayDigests,
    ShardDigests,
    content_digest,
    digest_pieces,
    piece_rows,
    read_digests,
    read_shard_digests,
    write_file_digests,
)
from storage.feature_store.layout import ARRAY, DIGESTS_FILE, WORK_DIRECTORY, ArrayLayout
from storage.feature_store.metadata import read_layout
from storage.feature_store.partial_files import flush_or_remove, replace_text
from storage.feature_store.shard_files import complete_shards, read_shard
from storage.urls import local_path

_FLUSHES_AT_ONCE = 16


def finish_features(path: str | Path, *, flush: bool = True) -> str:
    """Write the digests of a store whose shards all exist, and return its content digest.

    With `flush` the shards are on the disk first.
    Calling it again, also from several processes at once, changes nothing. Raises StorageError when shards
    are missing.
    """
    group = local_path(path)
    layout = read_layout(group)
    if not (group / DIGESTS_FILE).exists():
        missing = sorted(set(range(layout.n_shards)) - set(complete_shards(group / ARRAY, layout)))
        if missing:
            raise StorageError(
                f"{group} is unfinished: {len(missing)} of {layout.n_shards} shards are missing,"
                f" first {missing[0]}"
            )
        if flush:
            _flush_shards(group, layout)
        shards = [_noted(group, layout, shard) for shard in range(layout.n_shards)]
        _note_files(group, layout, shards)
        replace_text(group / DIGESTS_FILE, _collect_digests(group, layout, shards).model_dump_json())
    shutil.rmtree(group / WORK_DIRECTORY, ignore_errors=True)  # another process may be removing it too
    return read_digests(group).content


def _flush_shards(group: Path, layout: ArrayLayout) -> None:
    """Flush all shards, many at once: the file system's journal then commits once for many of them."""
    files = [group / ARRAY / layout.shard_key(shard) for shard in range(layout.n_shards)]
    with ThreadPoolExecutor(_FLUSHES_AT_ONCE, thread_name_prefix="flush") as pool:
        list(pool.map(flush_or_remove, files))


def pieces_of(group: Path, layout: ArrayLayout, shard: int) -> tuple[str, ...]:
    """The digests of a shard's pieces: as its writer noted them, else of the rows that are there."""
    if (group / DIGESTS_FILE).exists():
        per_shard = -(-layout.rows_per_shard // piece_rows(layout.rows_per_shard))
        return read_digests(group).pieces[shard * per_shard : (shard + 1) * per_shard]
    return _noted(group, layout, shard).pieces


def note_file(group: Path, shard: int) -> Path:
    """Where a shard's writer notes its digests until the store is finished."""
    return group / WORK_DIRECTORY / f"digests-{shard}.json"


def _noted(group: Path, layout: ArrayLayout, shard: int) -> ShardDigests:
    noted = read_shard_digests(note_file(group, shard))
    if noted is None:
        rows = read_shard(group / ARRAY, layout, shard)
        noted = ShardDigests(pieces=digest_pieces(rows, piece_rows(layout.rows_per_shard)))
    return noted


def _note_files(group: Path, layout: ArrayLayout, shards: Sequence[ShardDigests]) -> None:
    """For who digests the store's files next: those whose writers knew their digests need not be read."""
    known = {
        f"{ARRAY}/{layout.shard_key(shard)}": noted.file for shard, noted in enumerate(shards) if noted.file
    }
    write_file_digests(group, known)


def _collect_digests(group: Path, layout: ArrayLayout, shards: Sequence[ShardDigests]) -> ArrayDigests:
    pieces = [piece for shard in shards for piece in shard.pieces]
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
