"""Opening a feature store: which tier reads it, and why."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import StorageError
from storage.feature_store.disk import DiskReader
from storage.feature_store.layout import ARRAY, INDEX_FILE, METADATA_FILE, ArrayLayout, parse_layout
from storage.feature_store.reader import FeatureReader, MemoryReader, Tier
from storage.urls import Location, local_path

log = logging.getLogger(__name__)


def open_features(
    path_or_url: Location,
    tier: Tier = "auto",
    *,
    memory_budget: int = 0,
    threads: int = 16,
    check_crc: bool = False,
) -> FeatureReader:
    """Open the array `features` of a Zarr v3 group, or a Zarr v3 array itself, for reading rows.

    `auto` reads all rows into memory when they take at most `memory_budget` bytes, else reads a local store
    by positioned reads and a remote one by ranged requests; what was chosen, and why, is logged. `threads` is
    the number of reads that wait for the disk at once. `check_crc` checks a row's CRC-32C where rows have
    one; the CRC of a shard's index is always checked. Bytes are not digested: `verify_features` does that.

    Raises StorageError when there is no such store, it is damaged, or the tier cannot read it.
    """
    path = local_path(path_or_url)
    array, layout = _find_array(path)
    reader: FeatureReader = DiskReader(
        array, layout, _index_reader(path), threads=threads, check_crc=check_crc
    )
    n_bytes = layout.n_rows * layout.row_bytes
    if tier == "memory" or (tier == "auto" and n_bytes <= memory_budget):
        rows = reader.rows(np.arange(layout.n_rows))
        reader.close()
        return MemoryReader(rows, _index_reader(path))
    return reader


def _find_array(path: Path) -> tuple[Path, ArrayLayout]:
    for array in (path / ARRAY, path):
        file = array / METADATA_FILE
        if file.exists():
            return array, parse_layout(json.loads(file.read_bytes()), str(file))
    raise StorageError(f"{path} is no feature store: it has no {ARRAY}/{METADATA_FILE}")


def _index_reader(path: Path) -> Callable[[], pa.Table]:
    return lambda: pq.read_table(path / INDEX_FILE)
