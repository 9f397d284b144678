"""What the features of a store are like, computed out of core with Dask: are these maps worth training on?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.bag
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import StorageError
from storage.feature_store.layout import ROWS_PER_SHARD
from storage.feature_store.opening import open_features
from storage.urls import Location

_BLOCK_BYTES = 16 << 20
"""Rows are widened to float64 sums in blocks of this many stored bytes, whatever the size of a shard."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Statistics over all rows. Arrays are (C,), one entry per channel, the first axis of a row.

    Distances are mean squared Euclidean distances over **all** pairs of rows of known identity, between rows
    averaged over their positions (C numbers per row). They are None if no pair exists.

    Attributes
    ----------
    n_rows, n_identities
        Number of rows, and of (dataset, person_id) that they show.
    channel_mean, channel_std
        Mean and standard deviation of each channel.
    channel_zeros
        Share of exact zeros in each channel.
    dead_channels
        The channels that are zero everywhere.
    within_identity, between_identity
        Mean distance of two rows of one identity, and of two identities.

    Examples
    --------
    >>> found = feature_statistics(features, scheduler="synchronous")
    >>> found.n_rows, found.n_identities, found.channel_mean.tolist(), found.dead_channels
    (4, 2, [3.0, 4.0], ())
    >>> found.within_identity, found.between_identity, found.sparsity
    (8.0, 20.0, 0.125)
    """

    n_rows: int
    n_identities: int
    channel_mean: np.ndarray
    channel_std: np.ndarray
    channel_zeros: np.ndarray
    dead_channels: tuple[int, ...]
    within_identity: float | None
    between_identity: float | None

    @property
    def sparsity(self) -> float:
        """The share of exact zeros in the array."""
        return float(self.channel_zeros.mean()) if len(self.channel_zeros) else 0.0

    @property
    def distance_ratio(self) -> float | None:
        """Within-identity over between-identity distance; far below 1 if the features tell people apart."""
        if self.within_identity is None or not self.between_identity:
            return None
        return self.within_identity / self.between_identity


@dataclass(frozen=True)
class _Sums:
    """Sums over some rows: for each channel, and for each identity code that occurs."""

    total: np.ndarray
    squares: np.ndarray
    zeros: np.ndarray
    codes: np.ndarray
    counts: np.ndarray
    identity_sums: np.ndarray
    identity_squares: np.ndarray


def feature_statistics(path_or_url: Location, *, scheduler: str = "threads") -> FeatureStatistics:
    """Compute statistics of a feature store, in memory of one block of rows per worker.

    Parameters
    ----------
    path_or_url
        A folder, or an fsspec URL.
    scheduler
        Dask's: `threads`, `processes`, `synchronous` or `distributed` (the current client's).

    Returns
    -------
    FeatureStatistics
        Over all rows.

    Raises
    ------
    StorageError
        If the store is empty, or its index has no column `dataset` or `person_id`.

    Examples
    --------
    >>> feature_statistics(features, scheduler="synchronous").distance_ratio
    0.4
    """
    with open_features(path_or_url) as reader:
        shape, index = reader.shape, reader.index
    if not shape[0]:
        raise StorageError(f"{path_or_url} has no rows to compute statistics of")
    codes, n_identities = _identity_codes(index)
    starts = range(0, shape[0], ROWS_PER_SHARD)
    parts = [(start, codes[start : start + ROWS_PER_SHARD]) for start in starts]
    bag: Any = dask.bag  # it has no types
    summed = bag.from_sequence(parts, npartitions=min(len(parts), 64)).map_partitions(
        partial(_sum_parts, path_or_url)
    )
    sums: _Sums = summed.fold(_add).compute(scheduler=scheduler)
    within, between = _distances(sums)
    values = shape[0] * int(np.prod(shape[2:], dtype=np.int64))
    mean = sums.total / values
    return FeatureStatistics(
        n_rows=shape[0],
        n_identities=n_identities,
        channel_mean=mean,
        channel_std=np.sqrt(np.maximum(sums.squares / values - mean**2, 0)),
        channel_zeros=sums.zeros / values,
        dead_channels=tuple(np.flatnonzero(sums.zeros == values).tolist()),
        within_identity=within,
        between_identity=between,
    )


def _identity_codes(index: pa.Table) -> tuple[np.ndarray, int]:
    """For each row the number of its (dataset, person_id), -1 where it is unknown; and how many there are."""
    absent = {"dataset", "person_id"} - set(index.column_names)
    if absent:
        raise StorageError(f"the index has no column {' or '.join(sorted(absent))}")
    names = pc.binary_join_element_wise(
        index["dataset"].cast(pa.string()), index["person_id"].cast(pa.string()), "\0"
    )
    encoded = pc.dictionary_encode(names).combine_chunks()
    return pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False), len(encoded.dictionary)


def _sum_parts(path_or_url: Location, parts: Sequence[tuple[int, np.ndarray]]) -> Iterator[_Sums]:
    with open_features(path_or_url) as reader:
        step = max(
            1, _BLOCK_BYTES // max(1, reader.dtype.itemsize * int(np.prod(reader.shape[1:], dtype=np.int64)))
        )
        for start, codes in parts:
            for first in range(0, len(codes), step):
                block = codes[first : first + step]
                rows = reader.rows(np.arange(start + first, start + first + len(block)))
                yield _sum_rows(rows.reshape(*rows.shape[:2], -1), block)


def _sum_rows(rows: np.ndarray, codes: np.ndarray) -> _Sums:
    """Sums over `rows` (n, C, positions)."""
    wide = rows.astype(np.float32)
    descriptors = wide.mean(axis=2, dtype=np.float64)
    known = codes >= 0
    found, places = np.unique(codes[known], return_inverse=True)
    sums = np.zeros((len(found), rows.shape[1]))
    np.add.at(sums, places, descriptors[known])
    return _Sums(
        total=descriptors.sum(axis=0) * rows.shape[2],
        squares=np.einsum("ncp,ncp->nc", wide, wide).sum(axis=0, dtype=np.float64),
        zeros=(rows == 0).sum(axis=(0, 2)),
        codes=found,
        counts=np.bincount(places, minlength=len(found)),
        identity_sums=sums,
        identity_squares=np.bincount(places, (descriptors[known] ** 2).sum(axis=1), minlength=len(found)),
    )


def _add(left: _Sums, right: _Sums) -> _Sums:
    codes, places = np.unique(np.concatenate([left.codes, right.codes]), return_inverse=True)
    sums = np.zeros((len(codes), left.identity_sums.shape[1]))
    np.add.at(sums, places, np.concatenate([left.identity_sums, right.identity_sums]))
    counts = np.concatenate([left.counts, right.counts])
    squares = np.concatenate([left.identity_squares, right.identity_squares])
    return _Sums(
        total=left.total + right.total,
        squares=left.squares + right.squares,
        zeros=left.zeros + right.zeros,
        codes=codes,
        counts=np.bincount(places, counts, len(codes)).astype(np.int64),
        identity_sums=sums,
        identity_squares=np.bincount(places, squares, len(codes)),
    )


def _distances(sums: _Sums) -> tuple[float | None, float | None]:
    """Mean squared distance over pairs of one identity, and over pairs of two.

    The sum over the pairs of a group is n * sum(|x|^2) - |sum(x)|^2.
    """
    counts = sums.counts
    within = float((counts * sums.identity_squares - (sums.identity_sums**2).sum(axis=1)).sum())
    n_within = int((counts * (counts - 1)).sum()) // 2
    n_all = int(counts.sum())
    total = sums.identity_sums.sum(axis=0)
    everything = n_all * float(sums.identity_squares.sum()) - float(total @ total)
    n_between = n_all * (n_all - 1) // 2 - n_within
    return (
        max(within, 0.0) / n_within if n_within else None,
        max(everything - within, 0.0) / n_between if n_between else None,
    )
