"""`embeddings.zarr`: plain Zarr v3 in float16 without compression, so that its files can be multiplied as
they lie.

Chunks are large blocks of whole rows. The feature store, by contrast, has one row per chunk, for random
reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from flows.errors import ConfigError
from storage import durable
from storage.reading import parse_json, read_regular, require_regular

if TYPE_CHECKING:
    from personsearch_core.search.top_k import CoarseRows

ROWS_PER_CHUNK = 131_072
_READ_ROWS = 2_048


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


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Blocks (n, D) float16 of an index; and the copy that a search multiplies, where there is one."""

    blocks: list[np.ndarray]
    coarse: CoarseRows | None


def load_embeddings(folder: Path, content: str) -> Embeddings:
    """The embeddings as a search is quickest with them, as far as half of the free memory allows.

    Where the processor multiplies bfloat16, a copy in it is read into memory; the rows themselves are mapped,
    since a search looks at few of them. Elsewhere they are read into memory: a product over memory of our own
    is a third quicker than over mapped files, whose pages are small.

    Raises ConfigError as `map_embeddings`.
    """
    import torch

    from personsearch_core.search.top_k import CoarseRows, multiplies_bfloat16

    blocks = map_embeddings(folder, content)
    if not blocks or sum(block.nbytes for block in blocks) > psutil.virtual_memory().available / 2:
        return Embeddings(blocks, None)
    count, dimensions = sum(map(len, blocks)), blocks[0].shape[1]
    if multiplies_bfloat16():
        parts = map(torch.from_numpy, _read(folder, blocks))
        return Embeddings(blocks, CoarseRows.of(parts, count, dimensions))
    rows = np.empty((count, dimensions), np.float16)
    start = 0
    for part in _read(folder, blocks):
        rows[start : start + len(part)] = part
        start += len(part)
    return Embeddings([rows], None)


def _read(folder: Path, blocks: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """All rows from their files, in parts that are overwritten by the next."""
    buffer = np.empty((_READ_ROWS, blocks[0].shape[1]), np.float16)
    for number, block in enumerate(blocks):
        with _chunk(folder, number).open("rb") as file:
            for start in range(0, len(block), _READ_ROWS):
                part = buffer[: min(_READ_ROWS, len(block) - start)]
                if file.readinto(part) != part.nbytes:  # type: ignore[arg-type]
                    raise ConfigError(f"{_chunk(folder, number)} is cut short: rebuild the index")
                yield part


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
            raise ConfigError(f"{folder} is not an uncompressed float16 array: rebuild the index")
        if metadata["attributes"]["content"] != content:
            raise ConfigError(f"{folder} does not belong to the people beside it: rebuild the index")
        blocks = []
        for number, start in enumerate(range(0, rows, size)):
            require_regular(_chunk(folder, number))
            # Copy-on-write, because torch takes no read-only arrays; nothing is ever written.
            mapped = np.memmap(_chunk(folder, number), np.float16, "c", shape=(size, dimensions))
            blocks.append(mapped[: min(size, rows - start)])
    except (OSError, LookupError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{folder} is damaged: {error}; rebuild the index") from error
    return blocks


def _chunk(folder: Path, number: int) -> Path:
    return folder / "c" / str(number) / "0"
