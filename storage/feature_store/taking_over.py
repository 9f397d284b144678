"""Taking rows over from another feature store, instead of computing them again.

A whole shard of the same rows becomes a hard link to the same file; where rows have moved, they are copied
through memory. What is handed out is sound: a file that is unchanged since it was verified, or rows that hold
to the digests that their writer noted.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from storage.errors import StorageError
from storage.feature_store.decoding import read_codec
from storage.feature_store.digests import ShardDigests, digest_pieces, read_digests
from storage.feature_store.layout import ARRAY, ArrayLayout
from storage.feature_store.metadata import read_layout
from storage.feature_store.shard_files import read_shard
from storage.feature_store.writer import FeatureWriter
from storage.trust import Digested, stat_key

_SHARDS_HELD = 2
"""Rows that have moved lie in two neighbouring shards."""


class DamagedRowsError(StorageError):
    """A shard of the other store does not have the rows that were written; none of them was handed out."""

    def __init__(self, message: str, rows: range) -> None:
        super().__init__(message)
        self.rows = rows


class EarlierRows:
    """The rows of another store, which is finished.

    Parameters
    ----------
    group
        Its folder.
    trusted
        Names of its files that are unchanged since they were verified.
    files
        SHA-256 of its files by name.

    Raises
    ------
    StorageError
        It is unfinished, or its metadata or its digests are damaged.
    """

    def __init__(self, group: Path, trusted: Collection[str], files: Mapping[str, str]) -> None:
        self.group = group
        self.layout = read_layout(group)
        self.codec = read_codec(group, self.layout)
        self._digests = read_digests(group)
        self._trusted = trusted
        self._files = files
        self._held = lru_cache(maxsize=_SHARDS_HELD)(self._read)

    def copy(self, numbers: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
        """Copy rows (n,) to these places (n,) of `out`. Raises DamagedRowsError."""
        shards = numbers // self.layout.rows_per_shard
        for shard in np.unique(shards).tolist():
            here = shards == shard
            rows = self._held(shard)
            out[places[here]] = rows[numbers[here] - shard * self.layout.rows_per_shard]

    def file(self, shard: int) -> Path:
        return self.group / ARRAY / self.layout.shard_key(shard)

    def digests(self, shard: int) -> ShardDigests:
        """Of a shard that is sound, as its file stands. Raises DamagedRowsError."""
        name = f"{ARRAY}/{self.layout.shard_key(shard)}"
        if name not in self._trusted:
            self._held(shard)
        sha256 = self._files.get(name)
        file = None if sha256 is None else Digested(sha256, stat_key(self.file(shard).stat()))
        # Rows that are sound do not make a file sound: what lies between them counts in its digest.
        return ShardDigests(pieces=self._noted(shard), file=file if name in self._trusted else None)

    def _noted(self, shard: int) -> tuple[str, ...]:
        return self._digests.of_shard(shard, self.layout.rows_per_shard)

    def _read(self, shard: int) -> np.ndarray:
        try:
            rows = read_shard(self.group / ARRAY, self.layout, shard)
        except (StorageError, OSError) as error:
            raise DamagedRowsError(str(error), self.layout.shard_rows(shard)) from error
        if digest_pieces(rows, self.layout.rows_per_shard) != self._noted(shard):
            raise DamagedRowsError(
                f"{self.file(shard)} does not have the rows that were written", self.layout.shard_rows(shard)
            )
        return rows


def adopt_shards(
    writer: FeatureWriter, shards: Iterable[int], taken: np.ndarray, source: EarlierRows
) -> Generator[int]:
    """Give shards that are whole shards of the other store to this one, and yield them.

    taken: (rows of the store,) the row of the other store that each row equals, -1 where it has none.
    Where the file system has no hard links, or the stores differ in layout, nothing is yielded.
    Raises DamagedRowsError, and StorageError if the stores have different codecs.
    """
    _require_one_codec(writer, source)
    if _encoding(writer.layout) != _encoding(source.layout):
        return
    for shard in shards:
        whole = _same_shard(taken[_span(writer.layout, shard)], source.layout)
        if whole is None:
            continue
        if not writer.adopt(shard, source.file(whole), source.digests(whole)):
            return
        yield shard


def fill_shards(
    writer: FeatureWriter,
    shards: Iterable[int],
    taken: np.ndarray,
    source: EarlierRows | None,
    computed: Iterator[np.ndarray],
) -> Generator[int]:
    """Write shards of rows of the other store and of computed ones, and yield each when it is on its way.

    source: None if `taken` has no row. computed: parts of all rows of these shards that the other store does
    not have, in their order.
    Raises DamagedRowsError, StorageError if the stores have different codecs, and what `computed` raises.
    """
    if source is not None:
        _require_one_codec(writer, source)
    layout, waiting = writer.layout, _Waiting(writer.stored(part) for part in computed)
    for shard in shards:
        numbers = taken[_span(layout, shard)]
        block = np.empty((len(numbers), *layout.row_shape), layout.dtype)
        missing = numbers < 0
        there = np.flatnonzero(~missing)
        if source is not None:
            source.copy(numbers[there], block, there)
        waiting.fill(block, np.flatnonzero(missing))
        writer.write_stored(shard * layout.rows_per_shard, block)
        yield shard


class _Waiting:
    """Rows that were computed and not written yet."""

    def __init__(self, parts: Iterator[np.ndarray]) -> None:
        self._parts = parts
        self._part: np.ndarray | None = None

    def fill(self, block: np.ndarray, places: np.ndarray) -> None:
        """Put the next rows at these places."""
        while len(places):
            if self._part is None or not len(self._part):
                self._part = next(self._parts)
            some = min(len(places), len(self._part))
            block[places[:some]] = self._part[:some]
            places, self._part = places[some:], self._part[some:]


def _require_one_codec(writer: FeatureWriter, source: EarlierRows) -> None:
    mine, others = (None if each is None else each.digest for each in (writer.codec, source.codec))
    if mine != others:
        raise StorageError(f"rows of {source.group} cannot be taken over: they are stored by another codec")


def missing_rows(layout: ArrayLayout, shards: Sequence[int], taken: np.ndarray) -> np.ndarray:
    """The rows of these shards that the other store does not have, in order."""
    spans = [np.arange(len(taken))[_span(layout, shard)] for shard in shards]
    rows = np.concatenate([np.empty(0, np.int64), *spans])
    return np.asarray(rows[taken[rows] < 0])


def _span(layout: ArrayLayout, shard: int) -> slice:
    rows = layout.shard_rows(shard)
    return slice(rows.start, rows.stop)


def _encoding(layout: ArrayLayout) -> ArrayLayout:
    """What two arrays must share for their files to be the same: all but length and attributes."""
    return replace(layout, shape=(0, *layout.row_shape), attributes={})


def _same_shard(numbers: np.ndarray, layout: ArrayLayout) -> int | None:
    """The shard of the other store that has just these rows in this order."""
    first = int(numbers[0])
    shard, rest = divmod(first, layout.rows_per_shard)
    if first < 0 or rest or len(numbers) != len(layout.shard_rows(shard)):
        return None
    return shard if np.array_equal(numbers, np.arange(first, first + len(numbers))) else None
