"""The metadata of a feature store: written by zarr-python, compared when a store is reopened."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from storage import durable
from storage.errors import StorageError
from storage.feature_store.digests import BLOCK_ROWS
from storage.feature_store.layout import ARRAY, MARK, METADATA_FILE, ArrayLayout, parse_layout
from storage.feature_store.shard_files import ZSTD_LEVEL
from storage.reading import parse_json, read_regular

if TYPE_CHECKING:
    from storage.feature_store.codecs import RowCodec

log = logging.getLogger(__name__)

Compression = Literal["none", "zstd"]

_DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.uint8))


def check_request(shape: tuple[int, ...], dtype: np.dtype, rows_per_shard: int) -> None:
    if dtype not in _DTYPES:
        raise StorageError(f"features cannot be stored as {dtype}: choose float16, float32 or uint8")
    if shape[0] < 0 or len(shape) < 2 or min(shape[1:]) < 1:
        raise StorageError(
            f"features of shape {shape} cannot be stored: rows need at least one axis, none of them empty"
        )
    if rows_per_shard < 1 or (BLOCK_ROWS % rows_per_shard and rows_per_shard % BLOCK_ROWS):
        raise StorageError(
            f"rows_per_shard is {rows_per_shard}: it must divide {BLOCK_ROWS} or be a multiple of it"
        )


def metadata_files(
    shape: tuple[int, ...],
    dtype: np.dtype,
    rows_per_shard: int,
    compression: Compression,
    attributes: Mapping[str, Any],
    codec: RowCodec | None,
) -> dict[str, bytes]:
    """The metadata as zarr-python writes it, by file name."""
    import zarr  # takes most of a second, and a process that only reads never needs it
    from zarr.codecs import ZstdCodec
    from zarr.core.buffer import Buffer
    from zarr.storage import MemoryStore

    files: dict[str, Buffer] = {}
    names = ("row", "channel", "y", "x") if len(shape) == 4 else None
    zarr.create_group(MemoryStore(files)).create_array(
        ARRAY,
        shape=shape,
        dtype=dtype,
        chunks=(1, *shape[1:]),
        shards=(rows_per_shard, *shape[1:]),
        compressors=[ZstdCodec(level=ZSTD_LEVEL)] if compression == "zstd" else None,
        fill_value=0,
        dimension_names=names,
        attributes={MARK: {"version": 1, **({"codec": codec.description} if codec else {})}, **attributes},
        config={"write_empty_chunks": True},
    )
    return {name: buffer.to_bytes() for name, buffer in files.items()}


def write_or_compare(file: Path, content: bytes) -> None:
    """Write a metadata file, or check that the existing one has the same content.

    One that is not a JSON object, as after a power cut, is written again: shards are checked against digests
    of their rows anyway.
    """
    try:
        there = parse_json(read_regular(file))
    except FileNotFoundError:
        there = None
    except ValueError as error:
        log.warning("%s is damaged; writing it again: %s", file, error)
        there = None
    wanted = json.loads(content)
    if not isinstance(there, dict):
        durable.write(file, content)
        return
    different = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
    if different:
        name = different[0]
        raise StorageError(
            f"{file} exists with other metadata: its {name} is {there.get(name)}, not {wanted.get(name)};"
            " choose another path or remove it"
        )


def read_layout(group: Path) -> ArrayLayout:
    """The layout of the array in a local feature store. Raises StorageError when there is none."""
    file = group / ARRAY / METADATA_FILE
    try:
        return parse_layout(parse_json(read_regular(file)), str(file))
    except FileNotFoundError as error:
        raise StorageError(f"{group} is not a feature store: it has no {ARRAY}/{METADATA_FILE}") from error
    except ValueError as error:
        raise StorageError(f"{file} is damaged: {error}") from error
