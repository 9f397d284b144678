"""Any Zarr v3 array that TensorStore opens, whatever its chunks and codecs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import tensorstore

from storage.errors import StorageError
from storage.feature_store.layout import MOST_ROW_BYTES
from storage.feature_store.reader import FeatureReader, Tier
from storage.urls import is_remote

_TUNING = ("config_kwargs", "use_listings_cache", "skip_instance_cache", "default_block_size")
"""Options that only say how fast a client works."""
_MOST_CHUNK_BYTES = 1 << 30
_MOST_CHUNKS = 1 << 14
_CACHE_BYTES = 64 << 20
"""Holds shard indexes, so that a row costs one request."""


class TensorStoreReader(FeatureReader):
    """Reads rows of the array at `url`: a local path, or a URL that TensorStore knows (s3, gs, http).

    Of fsspec's `options` it takes those of S3 that say where: `endpoint_url`, `region_name`, `profile` and
    `anon`. Raises StorageError for any other, and when TensorStore cannot read the array.
    """

    def __init__(self, url: str, read_index: Callable[[], pa.Table], options: Mapping[str, Any]) -> None:
        self.tier: Tier = "remote" if is_remote(url) else "disk"
        store = _key_value_store(url, options)
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
        _check_sizes(url, self._array)
        self._url = url
        super().__init__(tuple(self._array.shape), self._array.dtype.numpy_dtype, read_index)

    def _fill(self, indices: np.ndarray, out: np.ndarray) -> None:
        try:
            rows = self._array.oindex[indices].read().result()
        except ValueError as error:
            raise StorageError(f"{self._url} cannot be read: {error}") from error
        out[:] = rows.reshape(out.shape)


def _check_sizes(url: str, array: tensorstore.TensorStore) -> None:
    """Raise StorageError where a row, or a chunk that it must be decoded from, is too large to be meant."""
    dtype = array.dtype.numpy_dtype
    if dtype.kind not in "fiu" or not array.shape:
        raise StorageError(f"{url} holds {dtype} of shape {tuple(array.shape)}, not rows of numbers")
    chunk = tuple(side or 1 for side in array.chunk_layout.read_chunk.shape or (1,) * len(array.shape))
    bounds = (("row", array.shape[1:], MOST_ROW_BYTES), ("chunk", chunk, _MOST_CHUNK_BYTES))
    for what, shape, most in bounds:
        if math.prod(shape) * dtype.itemsize > most:
            raise StorageError(f"{url}: a {what} of shape {tuple(shape)} takes more than {most} bytes")
    pieces = math.prod(-(-side // part) for side, part in zip(array.shape[1:], chunk[1:], strict=True))
    if pieces > _MOST_CHUNKS:  # TensorStore keeps notes of each
        raise StorageError(f"{url}: a row is spread over {pieces} chunks, more than {_MOST_CHUNKS}")


def _key_value_store(url: str, options: Mapping[str, Any]) -> str | dict[str, Any]:
    """Where TensorStore finds the array, with what fsspec's options and boto3's environment say of it."""
    if not is_remote(url):
        return {"driver": "file", "path": url}
    given = {name: value for name, value in options.items() if name not in _TUNING}
    given |= given.pop("client_kwargs", {})
    place = urlsplit(url)
    is_s3 = place.scheme in ("s3", "s3a")
    store: dict[str, Any] = {"driver": "s3", "bucket": place.netloc, "path": place.path.strip("/") + "/"}
    if is_s3:
        endpoint = given.pop("endpoint_url", None) or os.environ.get("AWS_ENDPOINT_URL")
        region = given.pop("region_name", None) or os.environ.get("AWS_DEFAULT_REGION")
        profile = given.pop("profile", None)
        store |= {name: value for name, value in (("endpoint", endpoint), ("aws_region", region)) if value}
        if given.pop("anon", False):
            store["aws_credentials"] = {"type": "anonymous"}
        elif profile is not None:
            store["aws_credentials"] = {"type": "default", "profile": profile}
    if given:
        raise StorageError(
            f"{url} has a layout that only TensorStore reads, and TensorStore cannot take "
            f"{', '.join(sorted(given))} of storage_options: give credentials by the environment or a "
            "profile, or copy the array to this machine"
        )
    return store if is_s3 else url
