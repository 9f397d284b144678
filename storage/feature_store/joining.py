"""Several feature stores read as one: the rows of the first, then those of the second."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from storage.errors import StorageError
from storage.feature_store.reader import FeatureReader


def join_readers(readers: Sequence[FeatureReader]) -> FeatureReader:
    """Read several feature stores as one.

    Parameters
    ----------
    readers
        At least one. Their rows have one shape and dtype.

    Returns
    -------
    FeatureReader
        Of all rows, in the order of the readers; closing it closes them.

    Raises
    ------
    StorageError
        If `readers` is empty, or if their rows differ in shape or dtype.

    Examples
    --------
    >>> both = join_readers([open_features(features), open_features(features)])
    >>> len(both), both.rows([1, 5]).tolist()
    (8, [[2.0, 3.0], [2.0, 3.0]])
    """
    if not readers:
        raise StorageError("join_readers needs at least one reader")
    first = readers[0]
    for other in readers[1:]:
        if (other.shape[1:], other.dtype) != (first.shape[1:], first.dtype):
            raise StorageError(
                f"{first!r} and {other!r} cannot be read as one: build both with one detector and one roi"
            )
    return first if len(readers) == 1 else JoinedReader(readers)


class JoinedReader(FeatureReader):
    """Reads each stretch of a request that lies in one store with that store's own reader."""

    def __init__(self, readers: Sequence[FeatureReader]) -> None:
        starts = np.cumsum([0, *(len(reader) for reader in readers)])
        super().__init__((int(starts[-1]), *readers[0].shape[1:]), readers[0].dtype, self._join_indexes)
        self.tier = readers[0].tier
        self.location = " + ".join(str(reader.location) for reader in readers)
        self._readers = tuple(readers)
        self._starts = starts[:-1]

    def _fill(self, indices: np.ndarray, out: np.ndarray) -> None:
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(indices)]
        for first, last in pairwise(cuts):
            number = owner[first]
            self._readers[number]._fill(indices[first:last] - self._starts[number], out[first:last])

    def _join_indexes(self) -> pa.Table:
        table = pa.concat_tables([reader.index for reader in self._readers])
        return table.set_column(
            table.column_names.index("row"), "row", pa.array(range(len(self)), table["row"].type)
        )

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
