"""`embeddings.zarr`: plain Zarr v3 in float16 without compression, so that its files can be multiplied as
they lie.

Chunks are large blocks of whole rows. The feature store, by contrast, has one row per chunk, for random
reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from flows.errors import ConfigError
from storage import durable
from storage.reading import parse_json, read_regular

ROWS_PER_CHUNK = 131_072


def write_embeddings(
    folder: Path, blocks: Iterator[np.ndarray], rows: int, dimensions: int, content: str
) -> None:
    """Write (rows, dimensions) float16 block by block, `chunk_rows(rows)` rows each; it is on the disk on
    return."""
    import zarr  # takes most of a second, and a search never needs it

    array = zarr.create_array(
        str(folder),
        shape=(rows, dimensions),
        chunks=(chunk_rows(rows), dimensions),
        dtype="float16",
        compressors=None,
        fill_value=0,
        attributes={"content": content},
        config={"write_empty_chunks": True},
    )
    start = 0
    for block in blocks:
        array[start : start + len(block)] = block
        start += len(block)
    for path in sorted(folder.rglob("*"), reverse=True):
        durable.flush(path)
    durable.flush(folder)


def chunk_rows(rows: int) -> int:
    return max(1, min(rows, ROWS_PER_CHUNK))


def load_embeddings(folder: Path, content: str) -> list[np.ndarray]:
    """As `map_embeddings`, but read into memory if that takes less than half of what is free.

    A product over memory of our own is a third quicker than over mapped files, whose pages are small.
    """
    blocks = map_embeddings(folder, content)
    if len(blocks) == 0 or sum(block.nbytes for block in blocks) > psutil.virtual_memory().available / 2:
        return blocks
    rows = np.empty((sum(map(len, blocks)), blocks[0].shape[1]), np.float16)
    start = 0
    for number, block in enumerate(blocks):
        with _chunk(folder, number).open("rb") as file:
            read = file.readinto(rows[start : start + len(block)])  # type: ignore[arg-type]
        if read != block.nbytes:
            raise ConfigError(f"{_chunk(folder, number)} is cut short: build the index again")
        start += len(block)
    return [rows]


def map_embeddings(folder: Path, content: str) -> list[np.ndarray]:
    """The array's blocks (n, D) float16, mapped into memory: nothing is read yet.

    Raises ConfigError if the array is damaged, or is not that of this content.
    """
    try:
        metadata = parse_json(read_regular(folder / "zarr.json"))
        rows, dimensions = metadata["shape"]
        size = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
        codecs = [codec["name"] for codec in metadata["codecs"]]
        if metadata["data_type"] != "float16" or codecs != ["bytes"]:
            raise ConfigError(f"{folder} is not an uncompressed float16 array: build the index again")
        if metadata["attributes"]["content"] != content:
            raise ConfigError(f"{folder} does not belong to the people beside it: build the index again")
        blocks = []
        for number, start in enumerate(range(0, rows, size)):
            # Copy-on-write, because torch takes no read-only arrays; nothing is ever written.
            mapped = np.memmap(_chunk(folder, number), np.float16, "c", shape=(size, dimensions))
            blocks.append(mapped[: min(size, rows - start)])
    except (OSError, LookupError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{folder} is damaged: {error}; build the index again") from error
    return blocks


def _chunk(folder: Path, number: int) -> Path:
    return folder / "c" / str(number) / "0"
