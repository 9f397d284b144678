"""Any Zarr v3 array that TensorStore opens, whatever its chunks and codecs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import tensorstore

from storage.errors import StorageError
from storage.feature_store.reader import FeatureReader, Tier
from storage.urls import is_remote

_CACHE_BYTES = 64 << 20
"""Holds shard indexes, so that a row costs one request."""


class TensorStoreReader(FeatureReader):
    """Reads rows of the array at `url`: a local path, or a URL that TensorStore knows (s3, gs, http)."""

    tier: Tier = "remote"

    def __init__(self, url: str, read_index: Callable[[], pa.Table]) -> None:
        store = url if is_remote(url) else {"driver": "file", "path": url}
        try:
            self._array = tensorstore.open(
                {"driver": "zarr3", "kvstore": store},
                context=tensorstore.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}}),
                open=True,
                read=True,
                recheck_cached_data=False,
            ).result()
        except (ValueError, NotImplementedError) as error:
            raise StorageError(f"{url} cannot be read by TensorStore: {error}") from error
        self._url = url
        super().__init__(tuple(self._array.shape), self._array.dtype.numpy_dtype, read_index)

    def _fill(self, indices: np.ndarray, out: np.ndarray) -> None:
        try:
            rows = self._array.oindex[indices].read().result()
        except ValueError as error:
            raise StorageError(f"{self._url} cannot be read: {error}") from error
        out[:] = rows.reshape(out.shape)
