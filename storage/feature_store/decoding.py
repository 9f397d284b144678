"""Rows that are stored by a codec, decoded as they are read; and the codec that an array's metadata names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from storage.errors import StorageError
from storage.feature_store.codecs import CODEC_FILE, RowCodec, parse_axes, parse_codec
from storage.feature_store.layout import ARRAY, MARK, METADATA_FILE, ArrayLayout
from storage.feature_store.reader import FeatureReader
from storage.reading import read_regular

_ROWS_AT_ONCE = 256
"""Bounds the memory for rows that are not decoded yet."""
_THREADS = 4
"""Of those that decode a batch, at most; NumPy lets them run at the same time."""


class DecodingReader(FeatureReader):
    """The rows of another reader, decoded."""

    def __init__(self, stored: FeatureReader, codec: RowCodec) -> None:
        super().__init__((len(stored), *codec.row_shape), codec.dtype, lambda: stored.index)
        self.tier = stored.tier
        self._stored = stored
        self._codec = codec
        self._threads = min(_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        self._pool_process = os.getpid()

    def _fill(self, indices: np.ndarray, out: np.ndarray) -> None:
        for start in range(0, len(indices), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            self._decode(self._stored.rows(indices[part]), out[part])

    def _decode(self, stored: np.ndarray, out: np.ndarray) -> None:
        bounds = np.linspace(0, len(stored), min(self._threads, len(stored)) + 1).astype(int)
        parts = [slice(start, stop) for start, stop in pairwise(bounds.tolist())]
        if len(parts) == 1:
            self._codec.decode(stored, out)
            return
        if self._pool_process != os.getpid():  # a forked child inherits no threads
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
            self._pool_process = os.getpid()
        list(self._pool.map(lambda part: self._codec.decode(stored[part], out[part]), parts))

    def close(self) -> None:
        self._pool.shutdown()
        self._stored.close()


def named_codec(
    attributes: object, read_file: Callable[[], bytes], where: str, shape: tuple[int, ...], dtype: np.dtype
) -> RowCodec | None:
    """The codec that an array's attributes name; None for rows that are stored as numbers.

    read_file: gives the content of `codec.safetensors`. where: the array's metadata, for messages.
    shape, dtype: those of a stored row.

    Raises StorageError when the codec is damaged, or does not fit the stored rows.
    """
    mark = attributes.get(MARK) if isinstance(attributes, Mapping) else None
    noted = mark.get("codec") if isinstance(mark, Mapping) else None
    if noted is None:
        return None
    if not isinstance(noted, Mapping):
        raise StorageError(f"{where} is damaged: its codec cannot be read")
    axes = None
    if noted.get("axes") is not None:
        try:
            content = read_file()
        except FileNotFoundError as error:
            raise StorageError(f"{where}: its {CODEC_FILE} is missing; rebuild its artifact") from error
        axes = parse_axes(content, CODEC_FILE)
    codec = parse_codec(noted, axes, where)
    if codec.stored != (tuple(shape), dtype):
        raise StorageError(f"{where} is damaged: its rows of {dtype} {tuple(shape)} do not fit its codec")
    return codec


def read_codec(group: Path, layout: ArrayLayout) -> RowCodec | None:
    """The codec of a local feature store. Raises StorageError when it is damaged."""
    return named_codec(
        layout.attributes,
        lambda: read_regular(group / CODEC_FILE),
        str(group / ARRAY / METADATA_FILE),
        layout.row_shape,
        layout.dtype,
    )
