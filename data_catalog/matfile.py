"""MATLAB level 5 .mat files, read with checks at every step.

Written against "MAT-File Format" (MathWorks, R2023b), chapter "Level 5 MAT-File Format". scipy reads the same
files, but a damaged one can make it ask for any amount of memory, and it holds a Python object for every cell
of a protocol file that has 35 million of them. Here every length is held against the bytes that are there.

Values come back plain: numbers as arrays (Fortran order kept by shape), text as `str`, a matrix of text as
the list of its lines without the blanks that pad them, a cell array as the
list of its cells and a struct array as a list of dicts, both in column-major order.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.errors import CatalogError
from data_catalog.files import open_file

HEADER_BYTES = 128
MAX_BYTES = 1 << 30
"""Uncompressed bytes that `read_mat` accepts for one variable."""
MAX_DEPTH = 16

MI_MATRIX = 14
MI_COMPRESSED = 15
MX_CELL, MX_STRUCT, MX_OBJECT, MX_CHAR = 1, 2, 3, 4
MX_NUMERIC = range(6, 16)

NUMBER_TYPES: dict[int, str] = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
"""miINT8 ... miUINT64 by their numpy code."""
TEXT_ENCODINGS: dict[int, str] = {1: "latin-1", 2: "latin-1", 16: "utf-8", 17: "utf-16", 18: "utf-32"}


class DamagedMat(ValueError):
    """Bytes that are not a MAT element; `read_mat` says in which file."""


def read_mat(path: Path) -> dict[str, Any]:
    """All variables of the file, by name.

    Raises:
        CatalogError: when the file is missing, is not a level 5 .mat file, or is damaged.
    """
    with open_file(path) as file:
        data = file.read()
    try:
        order = byte_order(data[:HEADER_BYTES])
        return dict(_variables(data, order))
    except DamagedMat as error:
        raise CatalogError(f"{path}: not a readable .mat file: {error}") from error


def only_variable(path: Path) -> tuple[str, Any]:
    """Name and value of the file's one variable, whatever its name.

    Raises:
        CatalogError: as `read_mat`, and when there is no variable or more than one.
    """
    found = read_mat(path)
    if len(found) != 1:
        names = ", ".join(map(repr, found)) or "none"
        raise CatalogError(f"{path}: expected one variable, found {names}")
    return next(iter(found.items()))


def byte_order(header: bytes) -> str:
    """'<' or '>' for struct and numpy.

    Raises:
        DamagedMat: when the header is not that of a level 5 file.
    """
    if header.startswith(b"\x89HDF") or header.startswith(b"MATLAB 7.3"):
        raise DamagedMat("it is in version 7.3 (HDF5); save it again in MATLAB with '-v7'")
    orders = {b"IM": "<", b"MI": ">"}
    mark = header[126:128]
    if mark not in orders:
        raise DamagedMat("the 128-byte header of a level 5 file is missing")
    return orders[mark]


def _variables(data: bytes, order: str) -> Iterator[tuple[str, Any]]:
    position = HEADER_BYTES
    while position < len(data):
        kind, start, end, position = read_tag(data, position, order)
        if kind == MI_COMPRESSED:
            plain = _inflate(data[start:end])
            kind, start, end, _ = read_tag(plain, 0, order)
        else:
            plain = data
        if kind != MI_MATRIX:
            raise DamagedMat(f"expected a matrix at byte {start - 8}, found type {kind}")
        yield read_matrix(plain, start, end, order)


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise DamagedMat(f"its compressed data are damaged ({error})") from error
    if not stream.eof:
        reason = f"holds more than {MAX_BYTES} bytes" if stream.unconsumed_tail else "ends too early"
        raise DamagedMat(f"its compressed data {reason}")
    return plain


def read_tag(data: bytes | memoryview, position: int, order: str) -> tuple[int, int, int, int]:
    """The element at `position`: its type, where its data start and end, and where the next one starts."""
    if position + 8 > len(data):
        raise DamagedMat(f"it ends within a tag at byte {position}")
    kind, size = struct.unpack_from(order + "II", data, position)
    if kind >> 16:  # small element: the size in the upper half, the data in the tag's own last four bytes
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise DamagedMat(f"a small element at byte {position} claims {size} bytes")
        return kind, position + 4, position + 4 + size, position + 8
    start, end = position + 8, position + 8 + size
    if end > len(data):
        raise DamagedMat(f"the element at byte {position} claims {size} bytes, past the end of the data")
    padded = end if kind == MI_COMPRESSED else end + (-size) % 8
    return kind, start, end, padded


def read_matrix(
    data: bytes | memoryview, position: int, end: int, order: str, depth: int = 0
) -> tuple[str, Any]:
    """Name and value of the matrix whose content is `data[position:end]`."""
    if depth > MAX_DEPTH:
        raise DamagedMat(f"matrices are nested more than {MAX_DEPTH} deep")
    if position == end:  # MATLAB writes an empty cell or field as a matrix of zero bytes
        return "", np.empty((0, 0))
    if end > len(data):
        raise DamagedMat("a matrix leaves its parent")
    flags, position = _numbers(data, position, order)
    dims, position = _numbers(data, position, order)
    name_bytes, position = _bytes(data, position, order)
    if flags.size < 1 or dims.size < 2 or (dims < 0).any():
        raise DamagedMat(f"a matrix at byte {position} has no valid flags or dimensions")
    kind = int(flags[0]) & 0xFF
    shape = tuple(int(d) for d in dims)
    name = name_bytes.decode("latin-1")
    if kind == MX_CELL:
        return name, list(_matrices(data, position, end, order, math.prod(shape), depth))
    if kind in (MX_STRUCT, MX_OBJECT):
        return name, _structs(data, position, end, order, shape, depth, is_object=kind == MX_OBJECT)
    if kind == MX_CHAR:
        return name, _text(data, position, order, shape)
    if kind in MX_NUMERIC:
        return name, _array(data, position, order, shape)
    raise DamagedMat(f"a matrix of class {kind} is not supported")


def _bytes(data: bytes | memoryview, position: int, order: str) -> tuple[bytes, int]:
    _, start, end, after = read_tag(data, position, order)
    return bytes(data[start:end]), after


def _numbers(data: bytes | memoryview, position: int, order: str) -> tuple[np.ndarray, int]:
    kind, start, end, after = read_tag(data, position, order)
    code = NUMBER_TYPES.get(kind)
    if code is None:
        raise DamagedMat(f"numbers of type {kind} at byte {position}")
    dtype = np.dtype(order + code)
    if (end - start) % dtype.itemsize:
        raise DamagedMat(f"{end - start} bytes at byte {position} are not a whole number of {dtype}")
    return np.frombuffer(data, dtype, (end - start) // dtype.itemsize, start), after


def _array(data: bytes | memoryview, position: int, order: str, shape: tuple[int, ...]) -> np.ndarray:
    values, _ = _numbers(data, position, order)
    if values.size != math.prod(shape):
        raise DamagedMat(f"an array of shape {shape} holds {values.size} numbers")
    return values.reshape(shape, order="F")


def _text(data: bytes | memoryview, position: int, order: str, shape: tuple[int, ...]) -> str | list[str]:
    if math.prod(shape) == 0:
        return ""
    kind, start, end, _ = read_tag(data, position, order)
    if len(shape) != 2:
        raise DamagedMat(f"text of shape {shape}; only lines are supported")
    raw = bytes(data[start:end])
    encoding = TEXT_ENCODINGS.get(kind)
    if kind == 4:  # miUINT16: one UTF-16 unit per character
        encoding = "utf-16"
    if encoding is None:
        raise DamagedMat(f"text of type {kind} at byte {position}")
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise DamagedMat(f"text at byte {position} is not {encoding}") from error
    if shape[0] == 1:
        return text
    if len(text) != math.prod(shape):
        raise DamagedMat(f"text of shape {shape} holds {len(text)} characters")
    return [text[line :: shape[0]].rstrip() for line in range(shape[0])]


def _structs(
    data: bytes | memoryview,
    position: int,
    end: int,
    order: str,
    shape: tuple[int, ...],
    depth: int,
    *,
    is_object: bool,
) -> list[dict[str, Any]]:
    if is_object:
        _, position = _bytes(data, position, order)
    fields, position = read_field_names(data, position, order)
    if not fields:
        return []
    width = len(fields)
    count = math.prod(shape) * width
    values = list(_matrices(data, position, end, order, count, depth))
    return [dict(zip(fields, values[i : i + width], strict=True)) for i in range(0, count, width)]


def read_field_names(data: bytes | memoryview, position: int, order: str) -> tuple[list[str], int]:
    """Names of a struct array's fields, and where its first value starts."""
    lengths, position = _numbers(data, position, order)
    names, position = _bytes(data, position, order)
    length = int(lengths[0]) if lengths.size else 0
    if length <= 0 or len(names) % length:
        if names:
            raise DamagedMat(f"field names at byte {position} have no valid length")
        return [], position
    fields = [
        names[i : i + length].split(b"\0", 1)[0].decode("latin-1") for i in range(0, len(names), length)
    ]
    return fields, position


def _matrices(
    data: bytes | memoryview, position: int, end: int, order: str, count: int, depth: int
) -> Iterator[Any]:
    """The values of an array's cells or fields."""
    if count > (end - position) // 8:
        raise DamagedMat(f"{count} values are claimed where {end - position} bytes are left")
    for _ in range(count):
        kind, start, stop, position = read_tag(data, position, order)
        if kind != MI_MATRIX or stop > end:
            raise DamagedMat(f"a value at byte {start - 8} is not a matrix of its array")
        yield read_matrix(data, start, stop, order, depth + 1)[1]
