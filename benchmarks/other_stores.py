"""Other stores that a user might choose, each written and read as its manual recommends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

Read = Callable[[np.ndarray], np.ndarray]

_BLOCK_ROWS = 256


def _zarr_oindex(path: Path, rows: np.ndarray) -> Read:
    import zarr

    array = zarr.create_group(path).create_array(
        "features",
        shape=rows.shape,
        dtype=rows.dtype,
        chunks=(1, *rows.shape[1:]),
        shards=(_BLOCK_ROWS, *rows.shape[1:]),
        compressors=None,
        config={"write_empty_chunks": True},
    )
    for start in range(0, len(rows), _BLOCK_ROWS):
        array[start : start + _BLOCK_ROWS] = rows[start : start + _BLOCK_ROWS]
    return lambda indices: np.asarray(array.oindex[indices])


def _tensorstore(path: Path, rows: np.ndarray) -> Read:
    import tensorstore

    _zarr_oindex(path, rows)
    store = {"driver": "file", "path": str(path / "features")}
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": 64 << 20}})
    spec = {"driver": "zarr3", "kvstore": store, "recheck_cached_data": False}
    array = tensorstore.open(spec, context=context).result()
    return lambda indices: np.asarray(array[indices].read().result())


def _h5py(path: Path, rows: np.ndarray) -> Read:
    import h5py

    path.mkdir()
    file = h5py.File(path / "rows.h5", "w")
    array = file.create_dataset("features", rows.shape, rows.dtype, chunks=(1, *rows.shape[1:]))
    for start in range(0, len(rows), _BLOCK_ROWS):
        array[start : start + _BLOCK_ROWS] = rows[start : start + _BLOCK_ROWS]

    def read(indices: np.ndarray) -> np.ndarray:
        wanted, inverse = np.unique(indices, return_inverse=True)  # h5py accepts ascending indices only
        return np.asarray(array[wanted])[inverse]

    return read


def _lmdb(path: Path, rows: np.ndarray) -> Read:
    import lmdb

    environment = lmdb.open(str(path), map_size=2 * rows.nbytes + (64 << 20), readahead=False)
    for start in range(0, len(rows), _BLOCK_ROWS):
        with environment.begin(write=True) as writing:
            for row in range(start, min(start + _BLOCK_ROWS, len(rows))):
                writing.put(row.to_bytes(8, "big"), rows[row].tobytes())

    def read(indices: np.ndarray) -> np.ndarray:
        with environment.begin(buffers=True) as reading:
            values = [reading.get(row.to_bytes(8, "big"), b"") for row in indices.tolist()]
            arrays = [np.frombuffer(value, rows.dtype) for value in values]
            return np.stack(arrays).reshape(-1, *rows.shape[1:])

    return read


OTHER_STORES: dict[str, Callable[[Path, np.ndarray], Read]] = {
    "zarr-python .oindex": _zarr_oindex,
    "tensorstore": _tensorstore,
    "h5py": _h5py,
    "LMDB": _lmdb,
}
