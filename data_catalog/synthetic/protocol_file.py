"""CUHK-SYSU protocol files of full size, laid out byte for byte as MATLAB lays out the real ones."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

TEST_IMAGES = 6_978
POSITIVES = 2
_CHAR, _STRUCT, _UINT8, _UINT16 = 4, 2, 9, 11
_EMPTY = struct.pack("<II", 14, 0)


def write_protocol(
    path: Path, *, queries: int = 2_900, gallery: int = 4_000, images: int = TEST_IMAGES, seed: int = 0
) -> None:
    """Write a `TestG<gallery>.mat` of `queries` queries, each with `gallery` distinct gallery images.

    The first two entries of a gallery carry the query's person. One compressed variable holds everything; it
    is written as a stream.
    """
    rng = np.random.default_rng(seed)
    names = [f"s{number}.jpg" for number in range(1, images + 1)]
    negatives = [_text(name) + _EMPTY + _EMPTY for name in names]
    entries = (_entry(rng, index, names, negatives, gallery) for index in range(queries))
    with path.open("wb") as file:
        file.write(b"MATLAB 5.0 MAT-file, synthetic".ljust(124) + b"\x00\x01IM")
        file.write(struct.pack("<II", 15, 0))
        size = 0
        for piece in _compressed(path.stem, queries, entries):
            size += file.write(piece)
        file.seek(132)
        file.write(struct.pack("<I", size))


def _compressed(name: str, queries: int, entries: Iterator[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(1)
    head = _head(_STRUCT, (1, queries), name) + _fields(["Query", "Gallery"], 8)
    yield compressor.compress(struct.pack("<II", 14, 0xFFFF_FFF8))  # readers go by the entries, not by this
    yield compressor.compress(head)
    for entry in entries:
        yield compressor.compress(entry)
    yield compressor.flush()


def _entry(
    rng: np.random.Generator, index: int, names: list[str], negatives: list[bytes], gallery: int
) -> bytes:
    person = f"p{index + 1}"
    chosen = rng.choice(len(names), gallery + 1, replace=False)
    boxes = np.column_stack(
        [rng.integers(1, 400, (POSITIVES + 1, 2)), rng.integers(20, 200, (POSITIVES + 1, 2))]
    )
    query = _matrix(
        _head(_STRUCT, (1, 1), "")
        + _fields(["imname", "idlocate", "ishard", "idname"], 9)
        + _text(names[chosen[-1]])
        + _box(boxes[-1])
        + _number(0)
        + _text(person)
    )
    found = [_text(names[chosen[i]]) + _box(boxes[i]) + _number(0) for i in range(min(POSITIVES, gallery))]
    rest = [negatives[i] for i in chosen[len(found) : gallery].tolist()]
    head = _head(_STRUCT, (1, gallery), "") + _fields(["imname", "idlocate", "ishard"], 9)
    return query + _matrix(head + b"".join(found) + b"".join(rest))


def _matrix(content: bytes) -> bytes:
    return struct.pack("<II", 14, len(content)) + content


def _head(kind: int, shape: tuple[int, int], name: str) -> bytes:
    text = name.encode()
    return (
        struct.pack("<IIII", 6, 8, kind, 0)
        + struct.pack("<IIii", 5, 8, *shape)
        + struct.pack("<II", 1, len(text))
        + _padded(text)
    )


def _fields(names: list[str], width: int) -> bytes:
    text = b"".join(name.encode().ljust(width, b"\0") for name in names)
    return struct.pack("<HHi", 5, 4, width) + struct.pack("<II", 1, len(text)) + _padded(text)


def _text(text: str) -> bytes:
    data = text.encode()
    return _matrix(_head(_CHAR, (1, len(data)), "") + struct.pack("<II", 16, len(data)) + _padded(data))


def _box(xywh: np.ndarray) -> bytes:
    """The smallest unsigned type that holds the numbers, as MATLAB's authors chose: it differs from box to
    box.
    """
    if xywh.max() < 256:
        return _matrix(_head(_UINT8, (1, 4), "") + struct.pack("<HH4B", 2, 4, *xywh.tolist()))
    return _matrix(_head(_UINT16, (1, 4), "") + struct.pack("<II4H", 4, 8, *xywh.tolist()))


def _number(value: int) -> bytes:
    return _matrix(_head(_UINT8, (1, 1), "") + struct.pack("<HHB3x", 2, 1, value))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)
