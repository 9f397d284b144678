"""The content digest of an array: over dtype, shape and the raw C-order bytes of each block of 256 rows.

Each writer digests its shards in pieces that combine into that digest, which does not depend on sharding or
compression.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from storage import durable
from storage.digests import canonical_json
from storage.errors import StorageError
from storage.feature_store.layout import DIGESTS_FILE, FILES_FILE
from storage.reading import first_problem, read_regular
from storage.trust import Digested

BLOCK_ROWS = 256


class ArrayDigests(BaseModel):
    """The content of `digests.json`: SHA-256, in hex, of each piece of `piece_rows` rows and of the array."""

    model_config = ConfigDict(extra="ignore", frozen=True)  # whatever another version notes beside these

    algorithm: str = "sha256"
    piece_rows: int
    pieces: tuple[str, ...]
    content: str

    def of_shard(self, shard: int, rows_per_shard: int) -> tuple[str, ...]:
        """The digests of a shard's pieces."""
        per_shard = -(-rows_per_shard // piece_rows(rows_per_shard))
        return self.pieces[shard * per_shard : (shard + 1) * per_shard]


class ShardDigests(BaseModel):
    """A writer's note on a shard: SHA-256, in hex, of its pieces and, if known, of its file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pieces: tuple[str, ...]
    file: Digested | None = None


_FILES = TypeAdapter(dict[str, Digested])


def piece_rows(rows_per_shard: int) -> int:
    """Rows of one digested piece: a block, or a shard where shards are smaller than blocks."""
    return min(rows_per_shard, BLOCK_ROWS)


def digest_pieces(rows: np.ndarray, rows_per_shard: int) -> tuple[str, ...]:
    """SHA-256 of each piece of the rows of shards, C-contiguous (n, ...); the last one may be short."""
    size = piece_rows(rows_per_shard)
    starts = range(0, len(rows), size)
    return tuple(hashlib.sha256(rows[start : start + size].data).hexdigest() for start in starts)


def content_digest(dtype: np.dtype, shape: Sequence[int], blocks: Iterable[str]) -> str:
    """The digest of an array from the digests of its blocks of 256 rows."""
    header = canonical_json({"block_rows": BLOCK_ROWS, "dtype": dtype.name, "shape": [int(n) for n in shape]})
    hasher = hashlib.sha256(header)
    for block in blocks:
        hasher.update(bytes.fromhex(block))
    return hasher.hexdigest()


def read_digests(path: Path) -> ArrayDigests:
    """The digests of a finished feature store.

    Raises StorageError when the store is unfinished or the file is damaged.
    """
    file = path / DIGESTS_FILE
    try:
        return ArrayDigests.model_validate_json(read_regular(file))
    except FileNotFoundError as error:
        raise StorageError(
            f"{path} is unfinished: it has no {DIGESTS_FILE}; write the missing shards and close"
        ) from error
    except ValidationError as error:
        raise StorageError(f"{file} is damaged: {first_problem(error)}") from error


def read_file_digests(path: Path) -> dict[str, Digested]:
    """Known digests of a feature store's files, by name, which need not be read."""
    try:
        return _FILES.validate_json(read_regular(path / FILES_FILE))
    except (FileNotFoundError, ValidationError):  # they will be read
        return {}


def write_file_digests(path: Path, files: Mapping[str, Digested]) -> None:
    """What `read_file_digests` reads. It lasts, so that a store has the same files after a power cut."""
    durable.write(path / FILES_FILE, _FILES.dump_json(dict(files)))


def read_shard_digests(file: Path) -> ShardDigests | None:
    """What a shard's writer left in the work directory.

    None when it left nothing, or when a power cut left the file without its content.
    """
    try:
        return ShardDigests.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
