"""Checking a feature store against its digests, and removing damaged shards so that only they are rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from storage.errors import StorageError
from storage.feature_store.decoding import read_codec
from storage.feature_store.digests import BLOCK_ROWS, content_digest, digest_pieces, read_digests
from storage.feature_store.finishing import pieces_of
from storage.feature_store.index_table import check_index
from storage.feature_store.layout import ARRAY, DIGESTS_FILE, ArrayLayout
from storage.feature_store.metadata import read_layout
from storage.feature_store.shard_files import read_shard
from storage.urls import local_path


@dataclass(frozen=True)
class DamagedShard:
    """A shard that does not match its digests.

    Attributes
    ----------
    shard, rows
        Its number, and the numbers of its rows.
    reason
        What is wrong with it.

    Examples
    --------
    >>> shard = DamagedShard(shard=1, rows=range(256, 512), reason="it is truncated")
    >>> len(shard.rows)
    256
    """

    shard: int
    rows: range
    reason: str


def verify_features(
    path: str | Path, *, threads: int = 2, progress: Callable[[int, int], None] | None = None
) -> list[DamagedShard]:
    """Read every shard of a finished store and check its rows against the digests recorded at writing.

    The digests are those of the rows in memory, before they went to the disk. In a store that another program
    wrote, the CRC-32Cs of the rows are checked. The index is checked against its digest in the artifact's
    manifest and against the checksums of its pages.

    Parameters
    ----------
    path
        A local feature store.
    threads
        Shards that are read, and held in memory, at once.
    progress
        Called with (shards done, shards).

    Returns
    -------
    list of DamagedShard
        Empty if every shard is intact.

    Raises
    ------
    StorageError
        The store is unfinished, its metadata, codec, digests or index are damaged, or it cannot be verified:
        it has neither digests nor checksums.

    Examples
    --------
    >>> verify_features(features)
    []
    """
    group = local_path(path)
    layout = read_layout(group)
    check_index(group, layout.n_rows)
    read_codec(group, layout)
    has_digests = layout.is_ours or (group / DIGESTS_FILE).exists()
    if has_digests:
        _check_digests(group, layout)
    elif not layout.rows_have_crc:
        raise StorageError(
            f"{group} was written by another program and has neither digests nor checksums of its rows: "
            "it cannot be verified"
        )
    check = partial(_problem, group, layout, has_digests)
    damaged = []
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        for shard, reason in enumerate(pool.map(check, range(layout.n_shards))):
            if reason:
                damaged.append(DamagedShard(shard, layout.shard_rows(shard), reason))
            if progress:
                progress(shard + 1, layout.n_shards)
    return damaged


def _check_digests(group: Path, layout: ArrayLayout) -> None:
    digests = read_digests(group)
    if digests.piece_rows == BLOCK_ROWS and digests.content != content_digest(
        layout.dtype, layout.shape, digests.pieces
    ):
        raise StorageError(f"{group / DIGESTS_FILE} is damaged: its digests do not make its content digest")


def remove_shards(path: str | Path, shards: Iterable[int]) -> None:
    """Remove shards, so that a resumed job rebuilds only these.

    Parameters
    ----------
    path
        A local feature store.
    shards
        Their numbers; those that are missing already are skipped.

    Raises
    ------
    StorageError
        The store is missing, or its metadata are damaged.

    Examples
    --------
    >>> remove_shards(features, [0])
    >>> summarise_features(features).missing_shards
    (0,)
    """
    group = local_path(path)
    layout = read_layout(group)
    for shard in shards:
        (group / ARRAY / layout.shard_key(shard)).unlink(missing_ok=True)


def _problem(group: Path, layout: ArrayLayout, has_digests: bool, shard: int) -> str | None:
    """What is wrong with a shard, or None. Reading it checks the checksums of its rows, if it has them."""
    try:
        rows = read_shard(group / ARRAY, layout, shard)
    except (StorageError, OSError) as error:
        return str(error)
    if has_digests and digest_pieces(rows, layout.rows_per_shard) != pieces_of(group, layout, shard):
        file = group / ARRAY / layout.shard_key(shard)
        return f"shard {shard} ({file}) is damaged: its rows do not match their recorded digest"
    return None
