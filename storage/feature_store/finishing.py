"""Finishing a feature store: the digests that its writers noted, combined into the content digest."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from storage import durable
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
from storage.feature_store.shard_files import complete_shards, read_shard
from storage.folders import remove_tree
from storage.urls import local_path


def finish_features(path: str | Path) -> str:
    """Write the digests of a store whose shards all exist, and return its content digest.

    The digests are those that the shards' writers recorded of the rows in memory; a shard without them counts
    as missing. Calling it again, or from several processes at once, changes nothing.

    Parameters
    ----------
    path
        The store's folder.

    Returns
    -------
    str
        SHA-256, in hex, over dtype, shape and the raw bytes of each block of 256 rows: the same for every
        sharding and compression.

    Raises
    ------
    StorageError
        Shards are missing.

    Examples
    --------
    >>> finish_features(features)[:8]
    '36817dcb'
    """
    group = local_path(path)
    layout = read_layout(group)
    if not (group / DIGESTS_FILE).exists():
        complete = complete_shards(group / ARRAY, layout)
        noted = {shard: note for shard in complete if (note := read_shard_digests(note_file(group, shard)))}
        missing = sorted(set(range(layout.n_shards)) - set(noted))
        if missing:
            raise StorageError(
                f"{group} is unfinished: {len(missing)} of {layout.n_shards} shards are missing,"
                f" first {missing[0]}"
            )
        shards = [noted[shard] for shard in range(layout.n_shards)]
        known = {layout.shard_key(shard): each.file for shard, each in enumerate(shards) if each.file}
        # For whoever digests the store's files next: those whose writers knew their digests need not be read.
        write_file_digests(group, {f"{ARRAY}/{name}": file for name, file in known.items()})
        durable.write(group / DIGESTS_FILE, _collect_digests(group, layout, shards).model_dump_json())
    _clear(group / WORK_DIRECTORY)
    return read_digests(group).content


def _clear(work: Path) -> None:
    """Remove the work directory: what stays in it would become a part of the artifact."""
    try:
        remove_tree(work)
    except OSError as error:
        # Another process may be rebuilding a shard that exists; it removes what it has written.
        if error.errno != errno.ENOTEMPTY:
            raise


def pieces_of(group: Path, layout: ArrayLayout, shard: int) -> tuple[str, ...] | None:
    """The digests of a shard's pieces, as its writer noted them; None where there is no sound note."""
    noted = read_shard_digests(note_file(group, shard))
    if noted is not None:
        return noted.pieces
    if not (group / DIGESTS_FILE).exists():
        return None
    return read_digests(group).of_shard(shard, layout.rows_per_shard)


def holds(group: Path, layout: ArrayLayout, shard: int) -> bool:
    """Whether the rows on the disk are those that the shard's writer had in memory, by its note of them."""
    noted = pieces_of(group, layout, shard)
    try:
        rows = None if noted is None else read_shard(group / ARRAY, layout, shard)
    except (StorageError, OSError):
        return False
    return rows is not None and digest_pieces(rows, layout.rows_per_shard) == noted


def note_file(group: Path, shard: int) -> Path:
    """Where a shard's writer notes its digests until the store is finished."""
    return group / WORK_DIRECTORY / f"digests-{shard}.json"


def _collect_digests(group: Path, layout: ArrayLayout, shards: Sequence[ShardDigests]) -> ArrayDigests:
    pieces = [piece for shard in shards for piece in shard.pieces]
    blocks = pieces if layout.rows_per_shard >= BLOCK_ROWS else _digest_blocks(group, layout, pieces)
    return ArrayDigests(
        piece_rows=piece_rows(layout.rows_per_shard),
        pieces=tuple(pieces),
        content=content_digest(layout.dtype, layout.shape, blocks),
    )


def _digest_blocks(group: Path, layout: ArrayLayout, pieces: Sequence[str]) -> list[str]:
    """Digests of blocks that span several small shards, whose rows have to be read again."""
    per_block = BLOCK_ROWS // layout.rows_per_shard
    digests: list[str] = []
    for first in range(0, layout.n_shards, per_block):
        shards = range(first, min(first + per_block, layout.n_shards))
        rows = np.concatenate([read_shard(group / ARRAY, layout, shard) for shard in shards])
        if digest_pieces(rows, layout.rows_per_shard) != tuple(pieces[shards.start : shards.stop]):
            raise StorageError(
                f"a shard of {group / ARRAY}, {shards.start} to {shards.stop - 1}, does not have the rows"
                " that were written: rebuild its artifact"
            )
        digests.extend(digest_pieces(rows, BLOCK_ROWS))
    return digests
