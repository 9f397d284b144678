"""Content digests: over what a thing means, not over how its bytes lie on disk.

Canonical JSON for recipes, named tensors for weights. All are SHA-256, in hex.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.errors import StorageError
from storage.reading import parse_json, require_regular

_BLOCK = 1 << 20


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no white space and no NaN: equal values give equal bytes.

    Raises ValueError for NaN and infinities, TypeError for what JSON cannot say.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def digest_json(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a regular file's bytes, read in blocks."""
    require_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_safetensors(path: Path) -> str:
    """Digest of the named tensors in a safetensors file: name, dtype, shape and bytes, in the order of names.

    The header's order, its padding and its `__metadata__` are layout and do not count.
    Raises StorageError when the file is not safetensors.
    """
    hasher = hashlib.sha256()
    try:
        require_regular(path)
        with path.open("rb") as file:
            (header_size,) = struct.unpack("<Q", file.read(8))
            if header_size > path.stat().st_size:
                raise StorageError(f"{path} is not a safetensors file: it is shorter than its header says")
            header = parse_json(file.read(header_size))
            if not isinstance(header, dict):
                raise StorageError(f"{path} is not a safetensors file: its header is not a JSON object")
            start = 8 + header_size
            for name in sorted(header.keys() - {"__metadata__"}):
                entry = header[name]
                first, last = entry["data_offsets"]
                if not 0 <= first <= last:
                    raise StorageError(
                        f"{path}: tensor {name!r} lies at bytes {first} to {last}, says its header"
                    )
                hasher.update(canonical_json([name, entry["dtype"], entry["shape"]]))
                file.seek(start + first)
                remaining = last - first
                while remaining:
                    block = file.read(min(remaining, _BLOCK))
                    if not block:
                        raise StorageError(f"{path}: truncated inside tensor {name!r}")
                    hasher.update(block)
                    remaining -= len(block)
    except (struct.error, ValueError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} is not a safetensors file: {error}") from error
    return hasher.hexdigest()


def digest_parts(parts: Mapping[str, str]) -> str:
    """One digest over named digests."""
    return digest_json(dict(parts))
