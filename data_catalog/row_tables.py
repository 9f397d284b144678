"""Blocks of rows as Arrow tables: columns by the schema, ids and scopes filled in, damaged boxes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError
from data_catalog.schema import BOXES, INVALID, REJECTS, SCOPE_DATASET

LARGEST_COORDINATE = 1e6
"""Pixels; beyond it a coordinate is damage (float32 would no longer hold a tenth of a pixel)."""

COORDINATES = ("x1", "y1", "x2", "y2")


def corners(table: pa.Table) -> np.ndarray:
    """(n, 4) from columns x1, y1, x2, y2, each box contiguous."""
    return np.stack([table[name].to_numpy() for name in COORDINATES], axis=1)


Column = Any
"""A sequence, an array, an Arrow array, or one value for all rows of the block."""


@dataclass
class RowBlock:
    """Some rows of one kind: columns by name, each with `length` values or one for all."""

    length: int
    columns: dict[str, Column]


def arrow_table(schema: pa.Schema, blocks: Sequence[RowBlock]) -> pa.Table:
    """The blocks' rows by the schema; a column that a block lacks is null there.

    Raises CatalogError for a value that the schema's type cannot hold.
    """
    blocks = [block for block in blocks if block.length]
    if not blocks:
        return schema.empty_table()
    arrays = [_column(target, blocks) for target in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def box_tables(blocks: list[RowBlock]) -> tuple[pa.Table, pa.Table]:
    """Boxes with ids and scopes, and rejects for the damaged among them."""
    blocks = [block for block in blocks if block.length]
    if not blocks:
        return BOXES.empty_table(), REJECTS.empty_table()
    xyxy = np.concatenate([block.columns["xyxy"] for block in blocks])
    table = _with_box_ids(_with_scope(arrow_table(BOXES, blocks)))
    faults = box_faults(xyxy)
    good = faults == ""
    if good.all():
        return table, REJECTS.empty_table()
    bad = np.flatnonzero(~good)
    details = pa.array([box_text(box) for box in xyxy[bad]])
    damaged = box_rejects(table.take(pa.array(bad)), INVALID, pa.array(faults[bad]), details)
    return table.filter(pa.array(good)), damaged


def box_faults(xyxy: np.ndarray) -> np.ndarray:
    """For each box (n, 4), the code of what makes it unusable, or ''."""
    with np.errstate(invalid="ignore"):
        not_finite = ~np.isfinite(xyxy).all(axis=1)
        huge = (np.abs(xyxy) > LARGEST_COORDINATE).any(axis=1)
        empty = (xyxy[:, 2] <= xyxy[:, 0]) | (xyxy[:, 3] <= xyxy[:, 1])
    return np.select([not_finite, huge, empty], ["box_not_finite", "box_huge", "box_empty"], default="")


def box_rejects(
    boxes: pa.Table, severity: pa.Array | str, code: pa.Array | str, detail: pa.Array | str
) -> pa.Table:
    """Rejects for boxes; what is text holds for all of them."""
    given = {"severity": severity, "code": code, "detail": detail}
    columns = {
        **{n: pa.repeat(each, len(boxes)) if isinstance(each, str) else each for n, each in given.items()},
        **{name: boxes[name] for name in ("image_id", "source_unit", "source_file", "source_row")},
    }
    return pa.Table.from_arrays([columns[f.name].cast(f.type) for f in REJECTS], schema=REJECTS)


def box_text(box: np.ndarray) -> str:
    """For messages."""
    return "x1 {:g}, y1 {:g}, x2 {:g}, y2 {:g}".format(*box)


def _with_scope(table: pa.Table) -> pa.Table:
    """Scope `dataset` where an identity has none; none without an identity."""
    known = pc.is_valid(table["person_id"])
    scope = pc.if_else(known, pc.fill_null(table["person_scope"].cast(pa.string()), SCOPE_DATASET), None)
    return with_column(table, "person_scope", scope)


def _with_box_ids(table: pa.Table) -> pa.Table:
    if table["box_id"].null_count == 0:
        return table
    made = pc.binary_join_element_wise(table["image_id"], table["source_row"].cast(pa.string()), "#")
    return with_column(table, "box_id", pc.coalesce(table["box_id"], made))


def with_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with other values of a column, in the column's type."""
    index = table.schema.get_field_index(name)
    target = table.schema.field(index)
    return table.set_column(index, target, _encode(values, target.type))


def one_value(text: str, count: int) -> pa.DictionaryArray:
    """A dictionary-encoded column that says the same in every row."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text], pa.string()))


def without_values(table: pa.Table, names: Sequence[str], which: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with null in these columns of text in the rows `which` says."""
    for name in names:
        text = table[name].cast(pa.string())
        table = with_column(table, name, pc.if_else(which, pa.scalar(None, pa.string()), text))
    return table


def ignored(boxes: pa.Table, which: pa.ChunkedArray, reason: str, unknown: Sequence[str]) -> pa.Table:
    """Boxes of which those that `which` says are ignore regions, with null in the columns `unknown`."""
    reasons = pc.if_else(which, reason, boxes["ignore_reason"].cast(pa.string()))
    boxes = with_column(boxes, "ignore", pc.or_(boxes["ignore"], which))
    return without_values(with_column(boxes, "ignore_reason", reasons), unknown, which)


def _column(target: pa.Field, blocks: Sequence[RowBlock]) -> pa.ChunkedArray:
    name = target.name
    plain = target.type.value_type if pa.types.is_dictionary(target.type) else target.type
    values = [block.columns.get(name) for block in blocks]
    if all(value is None for value in values):
        return pa.chunked_array([pa.nulls(sum(block.length for block in blocks), target.type)])
    if pa.types.is_dictionary(target.type) and all(_is_same_text(value, values[0]) for value in values):
        return pa.chunked_array([one_value(str(values[0]), sum(block.length for block in blocks))])
    chunks = [_chunk(block, plain, name) for block in blocks]
    return _encode(pa.chunked_array(chunks, type=plain), target.type)


def _chunk(block: RowBlock, type_: pa.DataType, name: str) -> pa.Array:
    value, length = block.columns.get(name), block.length
    where = block.columns.get("source_unit")
    try:
        if _is_scalar(value):
            return pa.nulls(length, type_) if value is None else pa.repeat(pa.scalar(value, type_), length)
        if isinstance(value, pa.ChunkedArray):
            value = value.combine_chunks()
        array = value.cast(type_) if isinstance(value, pa.Array) else pa.array(value, type_)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
        raise CatalogError(
            f"{where}: column {name!r}: a value cannot be stored as {type_}: {error}"
        ) from error
    if len(array) != length:
        raise CatalogError(f"{where}: column {name!r} has {len(array)} values for {length} rows")
    return array


def _encode(values: pa.Array | pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    if not pa.types.is_dictionary(type_) or pa.types.is_dictionary(values.type):
        return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    joined = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return pa.chunked_array([joined.dictionary_encode()])


def _is_same_text(value: Column, other: Column) -> bool:
    return isinstance(value, str) and isinstance(other, str) and value == other


def _is_scalar(value: Column) -> bool:
    return value is None or isinstance(value, str | int | float | bool | np.generic)
