"""Opening a feature store: which tier reads it, and why."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from storage.errors import StorageError
from storage.feature_store import index_table
from storage.feature_store.buffers import allocate_buffer
from storage.feature_store.codecs import CODEC_FILE
from storage.feature_store.decoding import DecodingReader, named_codec
from storage.feature_store.disk import DiskReader
from storage.feature_store.layout import (
    ARRAY,
    INDEX_FILE,
    METADATA_FILE,
    IndirectLayoutError,
    parse_layout,
)
from storage.feature_store.reader import FeatureReader, MemoryReader, Tier
from storage.feature_store.remote import REQUESTS_AT_ONCE, RemoteReader, fetch
from storage.feature_store.shard_cache import CachedReader, ShardCache
from storage.reading import parse_json, read_regular
from storage.urls import Location, filesystem, is_remote, join, local_path

log = logging.getLogger(__name__)

_LOAD_BYTES = 64 << 20


def open_features(
    path_or_url: Location,
    tier: Tier = "auto",
    *,
    memory_budget: int = 0,
    threads: int = 16,
    storage_options: Mapping[str, Any] | None = None,
    shard_cache: ShardCache | None = None,
) -> FeatureReader:
    """Open the array `features` of a Zarr v3 group, or a Zarr v3 array itself, for reading rows.

    CRC-32Cs are checked: of every shard's index, and of the rows that have one. Bytes are not digested:
    `verify_features` does that. Rows that were stored by a codec are decoded: all that the reader says of
    shape, type and bytes is about rows as numbers.

    Parameters
    ----------
    path_or_url
        A folder, or an fsspec URL (`s3://`, `gs://`, `http://`, ...).
    tier
        `auto` reads all rows into memory when they take at most `memory_budget` bytes, else reads a local
        store by positioned reads (`disk`) and a remote one by ranged requests (`remote`). An array whose rows
        are not whole chunks of a shard, or are not compressed by Zstandard, goes through TensorStore. The
        choice and its reason are logged.
    memory_budget
        Bytes.
    threads
        The number of reads that wait for the disk at once.
    storage_options
        For the URL's fsspec file system. TensorStore is given those that it knows; where it must read, others
        are refused.
    shard_cache
        Keeps whole shards of what is read by ranged requests on this machine.

    Returns
    -------
    FeatureReader
        Threads may share it; close it, or use it as a context manager.

    Raises
    ------
    StorageError
        The store is missing or damaged, or the tier cannot read it.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> folder = tempfile.mkdtemp()
    >>> with create_features(folder, n_rows=3, row_shape=(2,)) as writer:
    ...     writer.write(0, np.arange(6, dtype=np.float16).reshape(3, 2))
    >>> with open_features(folder, "disk") as reader:
    ...     reader.rows([2, 0]).tolist()
    [[4.0, 5.0], [0.0, 1.0]]
    """
    remote = is_remote(path_or_url)
    if remote and tier == "disk":
        raise StorageError(
            f"{path_or_url} is not on this machine, and the disk tier reads local stores: choose remote"
        )
    root = str(path_or_url) if remote else str(local_path(path_or_url).absolute())
    system, path = filesystem(root, **_options(root, storage_options))
    array, metadata = _find_array(system, path, root)
    read_index = partial(_read_index, system, path)
    try:
        layout = parse_layout(metadata, join(array, METADATA_FILE))
    except IndirectLayoutError as error:
        if tier == "disk":
            raise
        from storage.feature_store.tensorstore_reader import TensorStoreReader  # loads TensorStore

        url = join(root, *array.removeprefix(path).strip("/").split("/")) if array != path else root
        reader: FeatureReader = TensorStoreReader(url, read_index, storage_options or {})
        why = f"through TensorStore: {error}"
    else:
        if remote and shard_cache is not None:
            prefix = "".join(f"{part}/" for part in array.removeprefix(path).strip("/").split("/") if part)
            why = f"ranged requests, shards kept in {shard_cache.folder}"
            reader = CachedReader(
                system, array, layout, read_index, shard_cache, prefix=prefix, threads=threads
            )
        elif remote or tier == "remote":
            reader, why = RemoteReader(system, array, layout, read_index), "ranged requests"
        else:
            why = f"positioned reads from shard files, up to {threads} at once"
            reader = DiskReader(local_path(array), layout, read_index, threads=threads)
    codec = named_codec(
        metadata.get("attributes"),
        partial(_content, system, join(path, CODEC_FILE) if array != path else _beside(array)),
        join(array, METADATA_FILE),
        reader.shape[1:],
        reader.dtype,
    )
    if codec is not None:
        reader = DecodingReader(reader, codec)
    n_bytes = math.prod(reader.shape) * reader.dtype.itemsize
    if tier == "memory" or (tier == "auto" and n_bytes <= memory_budget):
        why = f"{n_bytes} bytes " + ("as asked" if tier == "memory" else f"fit the budget of {memory_budget}")
        reader = _load(reader, read_index)
    reader.location = str(path_or_url)
    _say(reader.location, reader.tier, why)
    return reader


@cache
def _say(location: str, tier: str, why: str) -> None:
    """Log it once per process: work by blocks opens a store many times."""
    log.debug("%s is read by tier %s (%s)", location, tier, why)


def _find_array(system: AbstractFileSystem, path: str, root: str) -> tuple[str, dict[str, Any]]:
    """The path of the array in a group, or of the array that `path` itself is, and its metadata."""
    arrays = [join(path, ARRAY), path]
    files = [join(array, METADATA_FILE) for array in arrays]
    for array, content in zip(arrays, _contents(system, files), strict=True):
        if isinstance(content, FileNotFoundError | NotADirectoryError):
            continue
        if isinstance(content, Exception):
            raise StorageError(f"{root} cannot be opened: {content}") from content
        try:
            return array, parse_json(content)
        except ValueError as error:
            raise StorageError(f"{join(array, METADATA_FILE)} is damaged: {error}") from error
    raise StorageError(f"{root} is not a feature store: it has no {ARRAY}/{METADATA_FILE}")


def _contents(system: AbstractFileSystem, files: list[str]) -> list[bytes | Exception]:
    """The content of each file, or why it cannot be read."""
    if isinstance(system, LocalFileSystem):
        return [_read_or_error(local_path(file)) for file in files]
    return fetch(system, files, [None] * len(files), [None] * len(files))


def _read_or_error(file: Path) -> bytes | Exception:
    """The content, unless it is a pipe or a device, which may never end."""
    try:
        return read_regular(file)
    except OSError as error:
        return error


def _read_index(system: AbstractFileSystem, path: str) -> pa.Table:
    file = join(path, INDEX_FILE)
    try:
        if isinstance(system, LocalFileSystem):
            return index_table.read_index(local_path(file))
        with system.open(file, "rb") as stream:
            return pq.read_table(stream, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise StorageError(f"{path} has no {INDEX_FILE}") from error
    except StorageError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StorageError(f"{file} is damaged or cannot be read: {error}") from error


def _beside(array: str) -> str:
    """The codec's file, next to an array that was named itself."""
    base, mark, query = array.partition("?")
    return f"{base.rstrip('/').rpartition('/')[0]}/{CODEC_FILE}{mark}{query}"


def _content(system: AbstractFileSystem, file: str) -> bytes:
    (content,) = _contents(system, [file])
    if isinstance(content, FileNotFoundError):
        raise content
    if isinstance(content, Exception):
        raise StorageError(f"{file} cannot be read: {content}") from content
    return content


def _options(url: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """fsspec options; an S3 client keeps ten connections unless told, and makes a batch ten rounds."""
    options = dict(given or {})
    if fsspec.utils.get_protocol(url) in ("s3", "s3a"):
        options["config_kwargs"] = {
            "max_pool_connections": REQUESTS_AT_ONCE,
            **options.get("config_kwargs", {}),
        }
    return options


def _load(reader: FeatureReader, read_index: Callable[[], pa.Table]) -> MemoryReader:
    """All rows of `reader`, in one array; `reader` is closed."""
    rows = allocate_buffer(reader.shape, reader.dtype)
    step = max(1, _LOAD_BYTES // max(1, rows[:1].nbytes))
    with reader:
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            reader.rows(np.arange(start, start + len(part)), part)
    return MemoryReader(rows, read_index)
