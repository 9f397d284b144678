"""Columns of a part's objects by Arrow's JSON reader, typed as its first objects are: `1`, `1.0` and `"1"`
are read at full speed, as long as a part writes them in one way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from data_catalog.ids import LARGEST, number, whole
from data_catalog.jsonstream import ArrayPart

LARGEST_ID = 1 << 62
LARGEST_NUMBER = 1e30
SAMPLE = 32
"""Objects that are looked at for the types of their values."""

_ABSENT = object()
_DIGITS = r"^-?[0-9]{1,18}$"
_WHOLE = re.compile(r"[+-]?\d+(\.\d*([eE][+-]?\d+)?)?")
"""`1e3` is left a text, since it may be part of a hash."""


def has_key(entry: Any, key: str) -> bool:
    """Whether an object has a key; `attributes.track_id` may be a key itself, or a path of two."""
    return value_at(entry, key, _ABSENT) is not _ABSENT


def value_at(entry: Any, key: str | None, default: object = None) -> Any:
    """The value of a key or of a path of keys; `default` if it is absent."""
    if key is None or not isinstance(entry, dict):
        return default
    if key in entry:
        return entry[key]
    head, dot, rest = key.partition(".")
    return value_at(entry.get(head), rest, default) if dot else default


def as_text(value: Any) -> str:
    """The value as text that can be written as UTF-8."""
    return str(value).encode("utf-8", "replace").decode()


def flag(value: Any) -> bool:
    """Whether a flag is set: 1, true, `"1"`; null and NaN are not.

    Raises:
        ValueError: when it is not a flag.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, float) and math.isnan(value):
        return False
    if isinstance(value, str) and value.strip().lower() in ("true", "false", ""):
        return value.strip().lower() == "true"
    return number(value) != 0


def read_columns(
    part: ArrayPart, keys: Sequence[str], lists: Sequence[str] = ()
) -> dict[str, pa.Array] | None:
    """The values of keys, or of paths of keys, of a part's objects; None when a part writes a key in more
    than one way, or holds something else than objects.

    `lists` are keys of lists of numbers. A missing value is null.
    """
    sample = part.first(SAMPLE)
    if not all(isinstance(entry, dict) for entry in sample):
        return None  # Arrow ends the process at a null that comes first
    paths = {key: _path(sample, key) for key in (*keys, *lists)}
    types = {key: _scalar_type(value_at(entry, key) for entry in sample) for key in keys}
    types |= {key: _list_type(value_at(entry, key) for entry in sample) for key in lists}
    table = _read(part, paths, types)
    if table is None and pa.int64() in types.values():  # a float may come later
        types = {key: pa.float64() if pa.types.is_int64(each) else each for key, each in types.items()}
        table = _read(part, paths, types)
    return None if table is None else {key: _column(table, path) for key, path in paths.items()}


def _path(sample: Iterable[Any], key: str) -> tuple[str, ...]:
    """The names that lead to a key, as the first object that has it says."""
    entry = next((each for each in sample if has_key(each, key)), None)
    path: list[str] = []
    while entry is not None and key not in entry:
        head, _, key = key.partition(".")
        path.append(head)
        entry = entry[head]
    return (*path, key)


def _scalar_type(values: Iterable[Any]) -> pa.DataType:
    found = {type(value) for value in values if value is not None}
    if found == {int, float}:
        return pa.float64()
    one = next(iter(found)) if len(found) == 1 else int
    return {bool: pa.bool_(), float: pa.float64(), str: pa.string()}.get(one, pa.int64())


def _list_type(values: Iterable[Any]) -> pa.DataType:
    first = next((value for value in values if isinstance(value, list) and value), [0])
    return pa.list_(pa.string() if isinstance(first[0], str) else pa.float64())


def _read(
    part: ArrayPart, paths: Mapping[str, tuple[str, ...]], types: Mapping[str, pa.DataType]
) -> pa.Table | None:
    tree: dict[str, Any] = {}
    for key, path in paths.items():
        inside = tree
        for name in path[:-1]:
            inside = inside.setdefault(name, {})
            if not isinstance(inside, dict):
                return None
        inside[path[-1]] = types[key]
    text = part.lines()
    try:
        table = pa_json.read_json(
            pa.BufferReader(text),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            parse_options=pa_json.ParseOptions(
                explicit_schema=pa.schema(_fields(tree)),
                newlines_in_values=True,
                unexpected_field_behavior="ignore",
            ),
        ).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return table if len(table) == part.count else None


def _fields(tree: Mapping[str, Any]) -> list[pa.Field]:
    return [
        pa.field(name, pa.struct(_fields(each)) if isinstance(each, dict) else each)
        for name, each in tree.items()
    ]


def _column(table: pa.Table, path: Sequence[str]) -> pa.Array:
    column = table[path[0]].combine_chunks()
    return pc.struct_field(column, list(path[1:])) if len(path) > 1 else column


def mapped(column: pa.Array, function: Callable[[Any], Any], type_: pa.DataType) -> pa.Array:
    """The function's value of each value that is not null; it is asked once for each that is distinct.

    Raises:
        ValueError: when the function does.
    """
    coded = column.dictionary_encode()
    found = pa.array([function(value) for value in coded.dictionary.to_pylist()], type_)
    return found.take(coded.indices)


def nan_is_null(column: pa.Array) -> pa.Array:
    """The column with null for NaN, as tables with gaps are exported."""
    if not pa.types.is_float64(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)


def whole_column(column: pa.Array) -> pa.Array | None:
    """Whole numbers (int64) of a column of numbers or of their texts, nulls kept; None when one is not."""
    if pa.types.is_int64(column.type):
        return column
    if pa.types.is_float64(column.type):
        values = column.drop_null().to_numpy()
        sound = np.isfinite(values).all() and (np.abs(values) <= LARGEST).all()
        return column.cast(pa.int64()) if sound and (values == np.floor(values)).all() else None
    if not pa.types.is_string(column.type):
        return None
    if pc.all(pc.match_substring_regex(column, _DIGITS)).as_py() is not False:
        return column.cast(pa.int64())
    try:
        return mapped(column, whole, pa.int64())
    except (ValueError, OverflowError, pa.ArrowInvalid):
        return None


def flags(column: pa.Array) -> np.ndarray | None:
    """(n,) bool: where a flag is set; None when a value is not a flag."""
    if pa.types.is_string(column.type):
        try:
            column = mapped(column, flag, pa.bool_())
        except ValueError:
            return None
    column = nan_is_null(column)
    if pa.types.is_float64(column.type) and pc.any(pc.is_inf(column)).as_py():
        return None
    if not pa.types.is_boolean(column.type):
        column = pc.not_equal(column, pa.scalar(0, column.type))
    return np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False))


def boxes_column(column: pa.Array) -> np.ndarray | None:
    """(n, 4) float64 of lists of four numbers or of their texts; None when one is not."""
    if column.null_count or pc.any(pc.not_equal(pc.list_value_length(column), 4)).as_py():
        return None
    values = column.flatten()
    if values.null_count:
        return None
    if pa.types.is_string(values.type):
        try:
            values = values.cast(pa.float64())
        except pa.ArrowInvalid:
            return None
        if not np.isfinite(values.to_numpy()).all():
            return None
    boxes = np.asarray(values.to_numpy()).reshape(-1, 4)
    return None if (np.abs(boxes) > LARGEST_NUMBER).any() else boxes


class Ids:
    """The ids of a file's images, or of its categories, as whole numbers: 1, 1.0 and "1" are one id. A text
    that is not a number gets a number of its own, beyond all others.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._texts: list[str] = []

    def number(self, value: Any) -> int:
        """The number of an id.

        Raises:
            ValueError: when it cannot be an id.
        """
        if isinstance(value, str):
            text = value.strip()
            if not _WHOLE.fullmatch(text) or len(text) > 18 or not float(text).is_integer():
                return self._of_text(as_text(text))
            value = text if "e" in text.lower() else int(text.partition(".")[0])
        found = whole(value)
        if abs(found) > LARGEST_ID:
            raise ValueError(f"{str(value)[:40]!r} is too large for an id")
        return found

    def _of_text(self, text: str) -> int:
        if not text:
            raise ValueError("'' is not an id")
        if text not in self._numbers:
            self._numbers[text] = LARGEST_ID + 1 + len(self._texts)
            self._texts.append(text)
        return self._numbers[text]

    def numbers(self, column: pa.Array) -> np.ndarray | None:
        """The numbers of a column of ids; None when there is something else among them."""
        if column.null_count or pa.types.is_boolean(column.type):
            return None
        if pa.types.is_string(column.type) and not pc.all(pc.match_substring_regex(column, _DIGITS)).as_py():
            try:
                return np.asarray(mapped(column, self.number, pa.int64()).to_numpy())
            except ValueError:
                return None
        found = whole_column(column)
        if found is None or (len(found) and (np.abs(found.to_numpy()) > LARGEST_ID).any()):
            return None
        return np.asarray(found.to_numpy())

    def is_text(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the numbers stand for texts."""
        return np.asarray(numbers > LARGEST_ID)

    def written(self, numbers: np.ndarray) -> list[str]:
        """The ids as the file has them."""
        return [
            repr(self._texts[each - LARGEST_ID - 1]) if each > LARGEST_ID else str(each)
            for each in numbers.tolist()
        ]
