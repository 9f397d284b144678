"""What a feature store holds and takes, without reading a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import DTypeLike

from storage.errors import StorageError
from storage.feature_store.decoding import read_codec
from storage.feature_store.digests import read_digests
from storage.feature_store.index_table import read_index
from storage.feature_store.layout import ARRAY, DIGESTS_FILE, INDEX_FILE, MARK, ROWS_PER_SHARD
from storage.feature_store.metadata import read_layout
from storage.feature_store.shard_files import complete_shards
from storage.urls import local_path


@dataclass(frozen=True)
class FeatureSummary:
    """What a feature store holds.

    Attributes
    ----------
    path
        The store's folder.
    shape, dtype
        Of the array as it is read: (N, *row shape).
    array_bytes, stored_bytes
        Bytes of the array in memory, and of its shards on disk.
    n_shards, missing_shards, rows_per_shard
        Number of shards, those that are not written yet, and rows of one.
    compressed, codec
        Whether rows are compressed, and how they are encoded; None if they are stored unchanged.
    content_digest
        SHA-256 of the rows; None while shards are missing.
    made_by
        The `attributes` that `create_features` was given.
    identities, rows_without_identity
        Rows per (dataset, person_id), most rows first, and the number of rows of unknown people.

    Examples
    --------
    >>> summary = summarise_features(features)
    >>> summary.shape, summary.dtype, summary.array_bytes, summary.missing_shards
    ((4, 2), 'float16', 16, ())
    >>> summary.identities, summary.rows_without_identity
    ({('prw', '7'): 2, ('prw', '9'): 1}, 1)
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    array_bytes: int
    stored_bytes: int
    n_shards: int
    missing_shards: tuple[int, ...]
    rows_per_shard: int
    compressed: bool
    codec: Mapping[str, Any] | None
    content_digest: str | None
    made_by: Mapping[str, Any]
    identities: Mapping[tuple[str, str], int]
    rows_without_identity: int


def summarise_features(path: str | Path) -> FeatureSummary:
    """Describe a feature store, finished or not, without reading rows.

    Parameters
    ----------
    path
        A local folder.

    Returns
    -------
    FeatureSummary
        From its metadata, its index and the sizes of its files.

    Raises
    ------
    StorageError
        The store is missing, or its metadata or its index are damaged.

    Examples
    --------
    >>> summarise_features(features).n_shards
    1
    """
    group = local_path(path)
    layout = read_layout(group)
    codec = read_codec(group, layout)
    row_shape, dtype = (layout.row_shape, layout.dtype) if codec is None else (codec.row_shape, codec.dtype)
    complete = complete_shards(group / ARRAY, layout)
    identities, unknown = _count_identities(group / INDEX_FILE)
    return FeatureSummary(
        path=str(group),
        shape=(layout.n_rows, *row_shape),
        dtype=dtype.name,
        array_bytes=layout.n_rows * math.prod(row_shape) * dtype.itemsize,
        stored_bytes=sum((group / ARRAY / layout.shard_key(shard)).stat().st_size for shard in complete),
        n_shards=layout.n_shards,
        missing_shards=tuple(sorted(set(range(layout.n_shards)) - set(complete))),
        rows_per_shard=layout.rows_per_shard,
        compressed=layout.compressed,
        codec=None if codec is None else codec.description,
        content_digest=read_digests(group).content if (group / DIGESTS_FILE).exists() else None,
        made_by={name: value for name, value in layout.attributes.items() if name != MARK},
        identities=identities,
        rows_without_identity=unknown,
    )


def features_bytes(
    n_rows: int, row_shape: Sequence[int], dtype: DTypeLike = np.float16, rows_per_shard: int = ROWS_PER_SHARD
) -> int:
    """How many bytes the shards of an uncompressed store take on disk.

    Parameters
    ----------
    n_rows, row_shape, dtype, rows_per_shard
        As for `create_features`.

    Returns
    -------
    int
        Bytes.

    Examples
    --------
    >>> features_bytes(n_rows=256, row_shape=(2,), dtype=np.float16)  # with 4,100 bytes of shard index
    5124
    """
    n_shards = -(-n_rows // rows_per_shard)
    return n_rows * math.prod(row_shape) * np.dtype(dtype).itemsize + n_shards * (16 * rows_per_shard + 4)


def _count_identities(index_file: Path) -> tuple[dict[tuple[str, str], int], int]:
    try:
        table = read_index(index_file, ("dataset", "person_id"))
    except FileNotFoundError:
        return {}, 0
    if not {"dataset", "person_id"} <= set(table.column_names):
        return {}, 0
    known = table.filter(pc.is_valid(table["person_id"]))
    try:
        counts = known.group_by(["dataset", "person_id"]).aggregate([([], "count_all")]).to_pylist()
        counts.sort(key=lambda group: (-group["count_all"], group["dataset"], group["person_id"]))
    except (pa.ArrowException, TypeError) as error:
        types = ", ".join(f"{field.name}: {field.type}" for field in table.schema)
        raise StorageError(f"{index_file} is damaged: identities cannot be counted by {types}") from error
    identities = {(group["dataset"], group["person_id"]): group["count_all"] for group in counts}
    return identities, table.num_rows - known.num_rows
