"""A long struct array in a .mat file, read element by element in bounded memory.

CUHK-SYSU's protocol files hold one compressed variable: a struct array with one `Query` and one `Gallery`
each, the latter a struct array of up to 4,000 entries. Decompressed it has gigabytes. Here the bytes of one
value are held at a time, and a gallery is taken apart by numpy.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_catalog.errors import CatalogError
from data_catalog.files import open_file
from data_catalog.matfile import (
    HEADER_BYTES,
    MI_COMPRESSED,
    MI_MATRIX,
    MX_CHAR,
    MX_STRUCT,
    DamagedMat,
    byte_order,
    read_field_names,
    read_matrix,
    read_tag,
)

LARGEST_VALUE = 1 << 28
"""Bytes of one value; a gallery of 4,000 entries has about 400 kB."""
MOST_VALUES = 1 << 24
PIECE = 1 << 18

_FLAGS_TAG, _DIMS_TAG = (6, 8), (5, 8)
_TEXT_UTF8, _TEXT_UTF16 = 16, 4


class StructStream:
    """The values of a file's one struct array, in order; use it as a context manager.

    Raises:
        CatalogError: on entering and while iterating, when the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plain = bytearray()

    def __enter__(self) -> StructStream:
        try:
            with ExitStack() as opened:
                self._file = opened.enter_context(open_file(self.path))
                self._open()
                self._opened = opened.pop_all()
        except DamagedMat as error:
            raise self._damaged(error) from error
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def __iter__(self) -> Iterator[dict[str, bytes]]:
        """For each struct, the bytes of the matrix in each field, tag left out."""
        for index in range(self.count):
            try:
                yield {field: self._value() for field in self.fields}
            except DamagedMat as error:
                raise self._damaged(f"entry {index + 1} of {self.count}: {error}") from error

    def _open(self) -> None:
        header = self._file.read(HEADER_BYTES)
        self.order = byte_order(header)
        self._inflater: Any = None
        kind, _ = self._tag_of(self._take(8))
        if kind == MI_COMPRESSED:
            compressed, self._plain = bytes(self._plain), bytearray()
            self._inflater = zlib.decompressobj()
            self._plain += self._inflate(compressed)
            kind, _ = self._tag_of(self._take(8))
        if kind != MI_MATRIX:
            raise DamagedMat("its first variable is not a matrix")
        flags, dims, _ = (self._element() for _ in range(3))
        if len(flags) < 4 or int(np.frombuffer(flags, self.order + "u4", 1)[0]) & 0xFF != MX_STRUCT:
            raise DamagedMat("its first variable is not a struct array")
        if len(dims) < 8 or len(dims) % 4:
            raise DamagedMat("its first variable has no dimensions")
        self.count = int(np.frombuffer(dims, self.order + "i4").astype(np.int64).prod())
        if not 0 <= self.count <= MOST_VALUES:
            raise DamagedMat(f"its first variable claims {self.count} entries")
        length, names = self._element(), self._element()
        width = int.from_bytes(length, "little" if self.order == "<" else "big")
        if not 0 < width <= 64 or not names or len(names) % width:
            raise DamagedMat("its first variable has no field names")
        self.fields = [
            names[i : i + width].split(b"\0", 1)[0].decode("latin-1") for i in range(0, len(names), width)
        ]

    def _value(self) -> bytes:
        kind, size = self._tag_of(self._take(8))
        if kind != MI_MATRIX or size % 8:
            raise DamagedMat("a value is not a matrix")
        return self._take(size)

    def _element(self) -> bytes:
        """The data of one element of numbers or text, its padding skipped."""
        tag = self._take(8)
        kind, size = self._tag_of(tag)
        if kind >> 16:
            return tag[4 : 4 + (kind >> 16)]
        data = self._take(size + (-size) % 8)
        return data[:size]

    def _tag_of(self, tag: bytes) -> tuple[int, int]:
        kind, size = np.frombuffer(tag, self.order + "u4").tolist()
        return kind, size

    def _take(self, size: int) -> bytes:
        if size > LARGEST_VALUE:
            raise DamagedMat(f"a value claims {size} bytes")
        while len(self._plain) < size:
            self._plain += self._more()
        taken = bytes(self._plain[:size])
        del self._plain[:size]
        return taken

    def _more(self) -> bytes:
        """The next bytes of the variable, at least one."""
        piece = b""
        while not piece:
            left = self._inflater.unconsumed_tail if self._inflater is not None else b""
            source = left or self._file.read(PIECE)
            if not source:
                raise DamagedMat("it ends too early")
            piece = source if self._inflater is None else self._inflate(source)
            if not piece and self._inflater.eof:
                raise DamagedMat("it ends too early")
        return piece

    def _inflate(self, source: bytes) -> bytes:
        try:
            return bytes(self._inflater.decompress(source, 4 * PIECE))
        except zlib.error as error:
            raise DamagedMat(f"its compressed data are damaged ({error})") from error

    def _damaged(self, why: object) -> CatalogError:
        return CatalogError(f"{self.path}: not a readable .mat file: {why}")


@dataclass(frozen=True)
class NamedBoxes:
    """Entries of a struct array with `imname` and `idlocate`: their names, and the boxes of those that have
    one.

    `labelled` holds rows of the entries with a box, `xywh` (len(labelled), 4) float64 their boxes.
    """

    names: pa.StringArray
    labelled: np.ndarray
    xywh: np.ndarray


def named_boxes(value: bytes, order: str) -> NamedBoxes:
    """Take a `Gallery` apart.

    Raises:
        DamagedMat: when it is not a struct array with these fields.
    """
    if not value:
        return _from_structs([])
    words = _elements(value, order)
    quick = _vectorised(value, order, *words) if words is not None else None
    return quick if quick is not None else _from_structs(read_matrix(value, 0, len(value), order)[1])


def box_of(value: object) -> list[float] | None:
    """x, y, width, height of an idlocate; None where it is empty.

    Integer types differ from cell to cell (uint8, uint16): x + w would overflow in them, so floats come back.

    Raises:
        DamagedMat: when it is not a box.
    """
    if not isinstance(value, np.ndarray):
        raise DamagedMat("an idlocate is not an array of numbers")
    if value.size == 0:
        return None
    if value.size != 4:
        raise DamagedMat(f"an idlocate has {value.size} numbers")
    return [float(number) for number in value.ravel()]


def _from_structs(entries: object) -> NamedBoxes:
    if not isinstance(entries, list):
        raise DamagedMat("a gallery is not a struct array")
    names: list[str] = []
    labelled: list[int] = []
    boxes: list[list[float]] = []
    for row, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("imname"), str):
            raise DamagedMat("a gallery entry has no imname")
        names.append(entry["imname"])
        box = box_of(entry.get("idlocate"))
        if box is not None:
            labelled.append(row)
            boxes.append(box)
    return NamedBoxes(
        pa.array(names, pa.string()), np.array(labelled, np.int64), np.array(boxes).reshape(-1, 4)
    )


def _elements(value: bytes, order: str) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    """Field names, all 8-byte words from the first value on as (n, 2) uint32, and where the values start in
    them.

    None when the bytes are not laid out as MATLAB does it; the slow way then finds out why.
    """
    position = 0
    for _ in range(3):
        _, _, _, position = read_tag(value, position, order)
    fields, position = read_field_names(value, position, order)
    if not fields or position % 8 or len(value) % 8 or position >= len(value):
        return None
    words = np.frombuffer(value, order + "u4", offset=position).reshape(-1, 2)
    starts = np.flatnonzero((words[:, 0] == MI_MATRIX) & (words[:, 1] % 8 == 0))
    following = starts + 1 + (words[starts, 1] >> 3).astype(np.int64)
    chained = len(starts) > 0 and starts[0] == 0 and following[-1] == len(words)
    if not chained or (following[:-1] != starts[1:]).any():  # a box may look like a tag: walk instead
        walked = _walk(words)
        if walked is None:
            return None
        starts = walked
    return (fields, words, starts) if len(starts) % len(fields) == 0 else None


def _walk(words: np.ndarray) -> np.ndarray | None:
    kinds, sizes = words[:, 0].tolist(), words[:, 1].tolist()
    starts: list[int] = []
    position = 0
    while position < len(kinds):
        if kinds[position] != MI_MATRIX or sizes[position] % 8:
            return None
        starts.append(position)
        position += 1 + sizes[position] // 8
    return np.array(starts, np.int64) if position == len(kinds) else None


def _vectorised(
    value: bytes, order: str, fields: list[str], words: np.ndarray, starts: np.ndarray
) -> NamedBoxes | None:
    if "imname" not in fields or "idlocate" not in fields:
        return None
    columns = starts.reshape(-1, len(fields))
    first_byte = len(value) - 8 * len(words)
    names = _names(value, first_byte, words, columns[:, fields.index("imname")])
    located = columns[:, fields.index("idlocate")]
    filled = words[located, 1] > 0
    standard = filled & (located + 4 < len(words))
    rows = located[standard]
    empty = np.zeros(len(located), bool)
    empty[standard] = (
        _is(words, rows + 1, _FLAGS_TAG)
        & _is(words, rows + 3, _DIMS_TAG)
        & (words[rows + 4] == 0).any(axis=1)
    )
    labelled = np.flatnonzero(filled & ~empty)
    if names is None:
        return None
    boxes = []
    for row in labelled.tolist():
        begin = first_byte + 8 * (int(located[row]) + 1)
        box = box_of(read_matrix(value, begin, begin + int(words[located[row], 1]), order)[1])
        if box is None:
            return None
        boxes.append(box)
    return NamedBoxes(names, labelled, np.array(boxes).reshape(-1, 4))


def _names(value: bytes, first_byte: int, words: np.ndarray, at: np.ndarray) -> pa.StringArray | None:
    """Text of matrices that hold one line of plain characters; None when any does not."""
    if not len(at) or int(at[-1]) + 7 >= len(words):
        return None
    dims, data_tag = words[at + 4], words[at + 6]
    wide = data_tag[:, 0] == _TEXT_UTF16
    length = dims[:, 1].astype(np.int64)
    as_expected = (
        _is(words, at + 1, _FLAGS_TAG)
        & (words[at + 2, 0] & 0xFF == MX_CHAR)
        & _is(words, at + 3, _DIMS_TAG)
        & (dims[:, 0] == 1)
        & (words[at + 5, 0] == 1)
        & (words[at + 5, 1] == 0)
        & (wide | (data_tag[:, 0] == _TEXT_UTF8))
        & (data_tag[:, 1] == length * np.where(wide, 2, 1))
        & (words[at, 1] >= 48 + data_tag[:, 1])
    )
    if not as_expected.all() or wide.any() != wide.all() or length.max() > 256:
        return None
    step = 2 if wide.any() else 1
    text = np.frombuffer(value, np.uint8)
    place = (first_byte + 8 * (at + 7))[:, None] + step * np.arange(length.max())
    characters = text[np.minimum(place, len(text) - 1)]
    inside = np.arange(length.max()) < length[:, None]
    flat = characters[inside]
    if (flat >= 128).any() or (step == 2 and text[np.minimum(place + 1, len(text) - 1)][inside].any()):
        return None
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int32)
    return pa.StringArray.from_buffers(len(at), pa.py_buffer(offsets), pa.py_buffer(flat))


def _is(words: np.ndarray, rows: np.ndarray, tag: tuple[int, int]) -> np.ndarray:
    return np.asarray((words[rows, 0] == tag[0]) & (words[rows, 1] == tag[1]))
