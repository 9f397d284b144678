"""The layout of a Zarr v3 array: its metadata, reduced to what a positioned read needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from storage.errors import StorageError

ARRAY = "features"
INDEX_FILE = "index.parquet"
DIGESTS_FILE = "digests.json"
FILES_FILE = "files.json"
WORK_DIRECTORY = ".partial"
METADATA_FILE = "zarr.json"
ROWS_PER_SHARD = 256
MARK = "feature_store"
"""An attribute that our writer sets: with it, a missing shard means unfinished work, not fill values."""

MOST_ROWS = 1 << 27
MOST_SHARDS = 1 << 18
MOST_ROW_BYTES = 256 << 20
"""A row of the largest ROI takes 34 MB. Metadata may come from anywhere, and claim any size."""

_DTYPES = {"float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32"}


class IndirectLayoutError(StorageError):
    """A valid Zarr array whose rows cannot be read straight from its files."""


@dataclass(frozen=True)
class ArrayLayout:
    """A sharded array of rows: one row per chunk, whole rows per shard.

    Each shard file has `rows_per_shard` rows in any order, each raw or as one Zstandard frame, with or
    without a CRC-32C, and the shard's index of (offset, length) at its end or start.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    rows_per_shard: int
    fill_value: float
    compressed: bool = False
    rows_have_crc: bool = False
    index_at_end: bool = True
    index_has_crc: bool = True
    separator: str = "/"
    key_prefix: bool = True
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        return self.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        """Bytes of one decoded row."""
        return math.prod(self.row_shape) * self.dtype.itemsize

    @property
    def n_shards(self) -> int:
        return -(-self.n_rows // self.rows_per_shard)

    @property
    def index_bytes(self) -> int:
        return 16 * self.rows_per_shard + (4 if self.index_has_crc else 0)

    @property
    def has_fixed_rows(self) -> bool:
        """True when a stored row has exactly the bytes of the decoded row."""
        return not self.compressed and not self.rows_have_crc

    @property
    def is_ours(self) -> bool:
        return MARK in self.attributes

    def shard_key(self, shard: int) -> str:
        """The shard's key below the array, such as `c/12/0/0/0`."""
        parts = [str(shard), *("0" for _ in self.row_shape)]
        return self.separator.join(["c", *parts] if self.key_prefix else parts)

    def shard_rows(self, shard: int) -> range:
        """The rows of a shard; the last shard may be short."""
        start = shard * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.n_rows))


def parse_layout(metadata: Mapping[str, Any], where: str) -> ArrayLayout:
    """The layout that a Zarr v3 array's metadata describes; `where` names it in errors.

    Raises StorageError if this is not a Zarr v3 array, IndirectLayoutError if only a general Zarr client can
    read its rows.
    """
    if not isinstance(metadata, Mapping):
        raise StorageError(f"{where} is damaged: it is not a JSON object")
    if metadata.get("zarr_format") != 3 or metadata.get("node_type") != "array":
        raise StorageError(f"{where} is not the metadata of a Zarr v3 array")
    try:
        return _parse(metadata, where)
    except StorageError:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise StorageError(f"{where} is damaged or incomplete Zarr metadata: {error!r}") from error


def _parse(metadata: Mapping[str, Any], where: str) -> ArrayLayout:
    shape = tuple(metadata["shape"])
    grid = metadata["chunk_grid"]
    dtype_name = metadata["data_type"]
    _require(dtype_name in _DTYPES, where, f"data type {dtype_name!r}")
    _require(grid["name"] == "regular", where, f"chunk grid {grid['name']!r}")
    _require(not metadata.get("storage_transformers"), where, "storage transformers")
    shard_shape = tuple(grid["configuration"]["chunk_shape"])
    if not (all(_is_count(n) for n in (*shape, *shard_shape)) and shape and shard_shape[0] > 0):
        raise StorageError(f"{where} is damaged: shape {shape} in shards of {shard_shape}")
    if shape[0] > MOST_ROWS or shard_shape[0] > MOST_ROWS or -(-shape[0] // shard_shape[0]) > MOST_SHARDS:
        raise StorageError(
            f"{where} claims {shape[0]} rows in shards of {shard_shape[0]}: more than {MOST_ROWS} rows or "
            f"{MOST_SHARDS} shards cannot be read"
        )
    if math.prod(shape[1:]) * np.dtype(dtype_name).itemsize > MOST_ROW_BYTES:
        raise StorageError(f"{where}: rows of shape {shape[1:]} take more than {MOST_ROW_BYTES} bytes each")
    codecs = metadata["codecs"]
    _require(
        len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed",
        where,
        "no sharding, or codecs around it",
    )
    sharding = codecs[0]["configuration"]
    _require(tuple(sharding["chunk_shape"]) == (1, *shape[1:]), where, "chunks that are not one whole row")
    _require(shard_shape[1:] == shape[1:], where, "shards that split rows")
    dtype = np.dtype(dtype_name)
    row_codecs = _codec_names(sharding["codecs"], dtype.itemsize, where)
    index_codecs = _codec_names(sharding["index_codecs"], 8, where)
    _require(row_codecs in ((), ("zstd",), ("crc32c",), ("zstd", "crc32c")), where, f"codecs {row_codecs}")
    _require(index_codecs in ((), ("crc32c",)), where, f"index codecs {index_codecs}")
    encoding = metadata["chunk_key_encoding"]
    by_default = encoding["name"] == "default"
    return ArrayLayout(
        shape=shape,
        dtype=dtype,
        rows_per_shard=shard_shape[0],
        fill_value=_fill_value(metadata["fill_value"], dtype),
        compressed="zstd" in row_codecs,
        rows_have_crc="crc32c" in row_codecs,
        index_at_end=sharding.get("index_location", "end") == "end",
        index_has_crc=bool(index_codecs),
        separator=encoding.get("configuration", {}).get("separator", "/" if by_default else "."),
        key_prefix=by_default,
        attributes=metadata.get("attributes", {}),
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _fill_value(value: Any, dtype: np.dtype) -> float:
    """A number, `NaN`, `Infinity`, `-Infinity`, or a float's bits in hexadecimal.

    Zarr v3 specification, section "Fill value" of the core data types.
    """
    if isinstance(value, str) and value.startswith("0x"):
        bits = bytes.fromhex(value[2:])
        return float(np.frombuffer(bits, dtype.newbyteorder(">"), count=1).item())
    return float(value)


def _codec_names(codecs: list[Mapping[str, Any]], itemsize: int, where: str) -> tuple[str, ...]:
    """The codecs after the one that turns numbers into bytes, which must be little-endian."""
    first = codecs[0]
    endian = first.get("configuration", {}).get("endian", "little")
    _require(first["name"] == "bytes", where, f"codec {first['name']!r}")
    _require(itemsize == 1 or endian == "little", where, f"{endian}-endian numbers")
    return tuple(codec["name"] for codec in codecs[1:])


def _require(condition: bool, where: str, what: str) -> None:
    if not condition:
        raise IndirectLayoutError(f"{where}: rows cannot be read straight from its files ({what})")
