"""Numbers drawn from names: the same name has the same number wherever it stands, whatever else is there."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

_CHUNK = 65_536
"""Names at once, so that a column of any length takes little memory."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def hash_names(names: pa.Array | pa.ChunkedArray, seed: int) -> np.ndarray:
    """A uint64 for each of `names` (n strings without nulls) -> (n,); evenly spread, and set by the seed."""
    chunks = names.chunks if isinstance(names, pa.ChunkedArray) else [names]
    parts = [
        _hash(chunk.slice(start, _CHUNK).cast(pa.large_string()))
        for chunk in chunks
        for start in range(0, len(chunk), _CHUNK)
    ]
    start = mix(np.full(1, seed % 2**64, np.uint64))
    return mix(np.concatenate([np.empty(0, np.uint64), *parts]) ^ start)


def mix(numbers: np.ndarray) -> np.ndarray:
    """Each uint64 scrambled, one to one: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    numbers = numbers + _FACTOR
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))


def _hash(names: pa.LargeStringArray) -> np.ndarray:
    """The bytes of each name as digits of a number modulo 2^64, whose base is odd."""
    _, offsets, text = names.buffers()
    if not len(names):
        return np.empty(0, np.uint64)
    bounds = np.frombuffer(offsets, np.int64)[names.offset : names.offset + len(names) + 1]
    lengths = np.diff(bounds)
    if text is None or not lengths.any():
        return np.zeros(len(names), np.uint64)
    digits = np.frombuffer(text, np.uint8)[bounds[0] : bounds[-1]].astype(np.uint64) + np.uint64(1)
    powers = np.multiply.accumulate(np.full(int(lengths.max()), _FACTOR))
    place = np.arange(len(digits)) - np.repeat(bounds[:-1] - bounds[0], lengths)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(digits * powers[place], dtype=np.uint64)])
    ends = bounds - bounds[0]
    return np.asarray(sums[ends[1:]] - sums[ends[:-1]])
