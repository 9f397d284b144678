"""Codecs of rows: stored in fewer bytes than they take as numbers, and decoded when they are read.

A row (C, ...) is encoded by itself, so its bytes depend on no other row. `channels` keeps its projections on
that many principal axes of the channels. `int8` keeps of each channel of a row its minimum and the size of
255 steps, two float16, and for each position a number of steps.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike
from safetensors import SafetensorError
from safetensors.numpy import load, save

from storage.digests import digest_json
from storage.errors import StorageError
from storage.feature_store.conversion import check_finite, convert_rows
from storage.feature_store.layout import MOST_ROW_BYTES

CODEC_FILE = "codec.safetensors"
"""Beside the array: `mean` (C,) and `axes` (channels, C), float32."""

Values = Literal["float", "int8"]

_DTYPES = ("float16", "float32")
_PAIR = np.dtype("<f2")
_PAIR_BYTES = 2 * _PAIR.itemsize
_STEPS = 255
_CHUNK = 1 << 18
"""Numbers that are decoded at once: what the second-level cache of a core holds."""
_MOST_CHANNELS = 1 << 14


@dataclass(frozen=True, eq=False)
class Axes:
    """Principal axes of the channels: `mean` (C,) and orthonormal `axes` (channels, C), float32."""

    mean: np.ndarray
    axes: np.ndarray

    @cached_property
    def file(self) -> bytes:
        """The content of `codec.safetensors`."""
        return save({"mean": self.mean, "axes": self.axes})

    @cached_property
    def digest(self) -> str:
        hasher = hashlib.sha256(np.array(self.axes.shape, "<i8").tobytes())
        for tensor in (self.mean, self.axes):
            hasher.update(np.ascontiguousarray(tensor, "<f4").tobytes())
        return hasher.hexdigest()


@dataclass(frozen=True, eq=False)
class RowCodec:
    """How rows are encoded for storage: in fewer bits, in fewer channels, or both.

    Parameters
    ----------
    row_shape, dtype
        Of the rows: (C, ...), float16 or float32.
    values
        `int8`, or `float` for numbers of the rows' own type.
    axes
        The axes that are stored instead of the channels, from `principal_axes`; None stores all channels.

    Raises
    ------
    StorageError
        If rows of this shape or dtype cannot be encoded, or the axes do not fit them.

    Examples
    --------
    >>> codec = RowCodec((16, 8, 4), np.dtype(np.float16), values="int8")
    >>> codec.stored
    ((16, 36), dtype('uint8'))
    """

    row_shape: tuple[int, ...]
    dtype: np.dtype
    values: Values = "float"
    axes: Axes | None = None

    def __post_init__(self) -> None:
        if self.dtype.name not in _DTYPES or len(self.row_shape) < 2 or min(self.row_shape) < 1:
            raise StorageError(
                f"rows of {self.dtype} {self.row_shape} have no codec: it takes {' or '.join(_DTYPES)}"
            )
        if self.values == "float" and self.axes is None:
            raise StorageError("a codec needs int8 values or fewer channels")
        n_channels = self.row_shape[0]
        if self.axes is not None and not (
            self.axes.mean.shape == (n_channels,)
            and self.axes.axes.ndim == 2
            and self.axes.axes.shape[1] == n_channels
            and 0 < len(self.axes.axes) <= n_channels
        ):
            raise StorageError(f"{CODEC_FILE} does not fit rows of {n_channels} channels")

    @property
    def channels(self) -> int | None:
        """How many channels are stored; None for all."""
        return None if self.axes is None else len(self.axes.axes)

    @property
    def stored(self) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of a stored row."""
        return stored_row(self.row_shape, self.dtype, self.values, self.channels)

    @property
    def description(self) -> dict[str, Any]:
        """JSON that says how to decode rows, with the digest of the axes."""
        axes = None if self.axes is None else self.axes.digest
        return {
            "values": self.values,
            "channels": self.channels,
            "axes": axes,
            "row_shape": list(self.row_shape),
            "dtype": self.dtype.name,
        }

    @property
    def digest(self) -> str:
        return digest_json(self.description)

    def encode(self, rows: np.ndarray, first_row: int = 0) -> np.ndarray:
        """Rows (n, *row_shape) as they are stored. Raises StorageError when one is or becomes infinite."""
        if rows.shape[1:] != self.row_shape:
            raise StorageError(f"rows of shape {rows.shape[1:]} do not fit a codec of {self.row_shape}")
        converted = convert_rows(rows, self.dtype)
        check_finite(converted, rows, first_row)
        shape, dtype = self.stored
        out = np.empty((len(rows), *shape), dtype)
        for part in self._parts(len(rows)):
            values = converted[part].reshape(-1, self.row_shape[0], self._positions).astype(np.float32)
            if self.axes is not None:
                values = np.matmul(self.axes.axes, values - self.axes.mean[:, None])
            if self.values == "int8":
                out[part] = _in_steps(values, first_row + part.start)
            else:
                given = values.reshape(-1, *shape)
                out[part] = convert_rows(given, self.dtype)
                check_finite(out[part], given, first_row + part.start)
        return out

    def decode(self, stored: np.ndarray, out: np.ndarray) -> None:
        """Decode rows (n, *stored shape) into `out`, (n, *row_shape)."""
        top = float(np.finfo(self.dtype).max)
        target = out.reshape(len(out), self.row_shape[0], self._positions)
        for part in self._parts(len(stored)):
            values = _from_steps(stored[part]) if self.values == "int8" else stored[part].astype(np.float32)
            if self.axes is not None:
                values = values.reshape(len(values), len(self.axes.axes), self._positions)
                values = np.matmul(self.axes.axes.T, values)
                values += self.axes.mean[:, None]
            # What was just below the largest number may be decoded to just above it.
            np.clip(values, -top, top, out=values)
            target[part] = values

    @property
    def _positions(self) -> int:
        return math.prod(self.row_shape[1:])

    def _parts(self, n_rows: int) -> list[slice]:
        step = max(1, _CHUNK // math.prod(self.row_shape))
        return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


def stored_row(
    row_shape: Sequence[int], dtype: DTypeLike, values: Values = "float", channels: int | None = None
) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type in which a row (C, ...) of `dtype` is stored."""
    kept = row_shape[0] if channels is None else channels
    if values == "float":
        return (kept, *row_shape[1:]), np.dtype(dtype)
    return (kept, _PAIR_BYTES + math.prod(row_shape[1:])), np.dtype(np.uint8)


def principal_axes(parts: Iterable[np.ndarray], channels: int) -> Axes:
    """The axes along which the channels vary most, over all rows and positions of a sample.

    Parameters
    ----------
    parts
        The sample, (n, C, ...) each. The order matters, because floating-point sums depend on it.
    channels
        Number of axes, 1 to C.

    Returns
    -------
    Axes
        By falling variance. The sign of each is the one that makes its largest number positive.

    Raises
    ------
    StorageError
        The sample is empty, or has fewer channels.

    Examples
    --------
    >>> rows = np.array([[1, 1], [2, 2], [-3, -3]], np.float32)
    >>> principal_axes([rows], channels=1).axes.astype(float).round(2).tolist()
    [[0.71, 0.71]]
    """
    total, products, count = np.zeros(0), np.zeros((0, 0)), 0
    for row in (row for rows in parts for row in rows):
        wide = row.reshape(len(row), -1).astype(np.float64)
        if not count:
            total, products = np.zeros(len(wide)), np.zeros((len(wide),) * 2)
        total += wide.sum(axis=1)
        products += wide @ wide.T
        count += wide.shape[1]
    if not 0 < channels <= len(total):
        raise StorageError(f"rows of {len(total)} channels do not have {channels} principal axes")
    mean = total / count
    _, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    axes = vectors[:, ::-1][:, :channels].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return Axes(mean.astype(np.float32), np.ascontiguousarray(axes * np.sign(largest), np.float32))


def parse_axes(content: bytes, where: str) -> Axes:
    """The axes that a file holds. Raises StorageError when it is damaged."""
    try:
        found = load(content)
        mean, axes = found["mean"], found["axes"]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise StorageError(f"{where} is damaged: {error}; rebuild its artifact") from error
    if mean.dtype != np.float32 or axes.dtype != np.float32 or axes.ndim != 2 or mean.ndim != 1:
        raise StorageError(f"{where} is damaged: it does not hold principal axes; rebuild its artifact")
    return Axes(mean, axes)


def parse_codec(noted: Mapping[str, Any], axes: Axes | None, where: str) -> RowCodec:
    """The codec that an array's attributes note; `axes` is the content of its file, if it needs one.

    Raises StorageError when they are damaged, or the file is not the one that the array was written with.
    """
    try:
        values, shape, dtype = noted["values"], noted["row_shape"], noted["dtype"]
        if values not in ("float", "int8") or dtype not in _DTYPES:
            raise ValueError(f"values {values!r} of {dtype!r}")
        is_row = all(type(side) is int and 0 < side <= _MOST_CHANNELS for side in shape)
        if not is_row or math.prod(shape) * np.dtype(dtype).itemsize > MOST_ROW_BYTES:
            raise ValueError(f"rows of shape {shape}")
        codec = RowCodec(tuple(shape), np.dtype(dtype), values, axes)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{where} is damaged: its codec cannot be read: {error!r}") from error
    if codec.description != dict(noted):
        raise StorageError(f"{where}: its {CODEC_FILE} is damaged or of another array; rebuild its artifact")
    return codec


def _in_steps(values: np.ndarray, first_row: int) -> np.ndarray:
    """(n, channels, positions) float32 -> uint8 (n, channels, 4 + positions)."""
    pairs = np.empty((*values.shape[:2], 2), _PAIR)
    with np.errstate(over="ignore"):
        # Rounded so that 255 steps from the minimum on reach all values, however small they are.
        pairs[..., 0] = _rounded(values.min(axis=2), -np.inf)
        span = values.max(axis=2) - pairs[..., 0].astype(np.float32)
        pairs[..., 1] = _rounded(span / _STEPS, np.inf)
    if not np.isfinite(pairs).all():
        row = first_row + int(np.flatnonzero(~np.isfinite(pairs).all(axis=(1, 2)))[0])
        raise StorageError(f"values of row {row} are too large for int8 with float16 steps: store float32")
    low, step = (pairs[..., i, None].astype(np.float32) for i in (0, 1))
    counts = np.rint((values - low) / np.where(step > 0, step, 1))
    out = np.empty((*low.shape[:2], _PAIR_BYTES + values.shape[2]), np.uint8)
    out[..., :_PAIR_BYTES] = pairs.view(np.uint8)
    out[..., _PAIR_BYTES:] = np.clip(counts, 0, _STEPS)
    return out


def _rounded(values: np.ndarray, towards: float) -> np.ndarray:
    """float32 as float16, rounded in one direction."""
    near = values.astype(_PAIR)
    beyond = near.astype(np.float32) > values if towards < 0 else near.astype(np.float32) < values
    return np.where(beyond, np.nextafter(near, _PAIR.type(towards)), near)


def _from_steps(stored: np.ndarray) -> np.ndarray:
    """The inverse of `_in_steps`, as float32."""
    pairs = np.ascontiguousarray(stored[..., :_PAIR_BYTES]).view(_PAIR).astype(np.float32)
    values: np.ndarray = np.multiply(stored[..., _PAIR_BYTES:], pairs[..., 1:], dtype=np.float32)
    values += pairs[..., :1]
    return values
