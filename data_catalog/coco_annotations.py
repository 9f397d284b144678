"""COCO annotations in columns: by Arrow's JSON reader, and one by one where that finds them irregular."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from data_catalog.jsonstream import Part

LARGEST_ID = 1 << 62
LARGEST_NUMBER = 1e30
NEGATIVE = r"^-[0-9]"
WHOLE_NUMBER = r"^(0|-?[1-9][0-9]{0,17})$"


@dataclass(frozen=True)
class Annotations:
    """Columns of equal length; `rows` counts from 1 in the file, `boxes` are x, y, w, h.

    `names` are the annotations' ids: all whole numbers, or all as text.

    `identity` holds the values of the key that was asked for, as text, null where nobody is named; None
    without such a key. `nobody` says where it stands for somebody unknown, `misnamed` where it cannot be an
    identity.
    """

    rows: np.ndarray
    names: pa.Array
    images: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    identity: pa.Array | None
    nobody: np.ndarray
    misnamed: np.ndarray

    def take(self, which: np.ndarray) -> Annotations:
        """The annotations at these positions."""
        at = pa.array(which)
        return Annotations(
            self.rows[which],
            self.names.take(at),
            self.images[which],
            self.categories[which],
            self.boxes[which],
            self.crowd[which],
            None if self.identity is None else self.identity.take(at),
            self.nobody[which],
            self.misnamed[which],
        )


def read_annotations(
    part: Part, first_row: int, identity_key: str | None
) -> tuple[Annotations, list[tuple[int, str]], int]:
    """Annotations of a part, (row, why) of those that are unusable, and how many there were in all.

    Raises:
        CatalogError: when the part is no JSON.
    """
    quick = _by_arrow(part, first_row, identity_key)
    if quick is not None:
        return quick, [], len(quick.rows)
    entries = part.elements()
    faults = [_fault(entry) for entry in entries]
    unusable = [(first_row + i, fault) for i, fault in enumerate(faults) if fault is not None]
    rows = np.array([first_row + i for i, fault in enumerate(faults) if fault is None], np.int64)
    usable = [entry for entry, fault in zip(entries, faults, strict=True) if fault is None]
    return _one_by_one(usable, rows, identity_key), unusable, len(entries)


def read_objects(part: Part, fields: Mapping[str, pa.DataType]) -> pa.Table | None:
    """The fields of a part's objects in columns, one chunk each; None when a value is of another type."""
    text = part.lines()
    try:
        table = pa_json.read_json(
            pa.BufferReader(text),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            parse_options=pa_json.ParseOptions(
                explicit_schema=pa.schema(fields.items()),
                newlines_in_values=True,
                unexpected_field_behavior="ignore",
            ),
        ).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return table if len(table) == part.count else None


def _by_arrow(part: Part, first_row: int, identity_key: str | None) -> Annotations | None:
    """None when a value is missing or of another type than is usual."""
    fields = {
        "id": pa.int64(),
        "image_id": pa.int64(),
        "category_id": pa.int64(),
        "bbox": pa.list_(pa.float64()),
        "iscrowd": pa.int64(),
    }
    if identity_key is not None:
        fields[identity_key] = pa.string() if _is_text(part, identity_key) else pa.int64()
    table = read_objects(part, fields)
    required = ("id", "image_id", "category_id", "bbox")
    if table is None or any(table[name].null_count for name in required):
        return None
    boxes, lengths = table["bbox"].combine_chunks(), pc.list_value_length(table["bbox"])
    if boxes.values.null_count or not pc.all(pc.equal(lengths, 4)).as_py():
        return None
    crowd = pc.equal(pc.fill_null(table["iscrowd"], 0), 1)
    identity = None if identity_key is None else _blank_is_null(table[identity_key].combine_chunks())
    return Annotations(
        rows=np.arange(first_row, first_row + len(table)),
        names=table["id"].combine_chunks(),
        images=table["image_id"].to_numpy(),
        categories=table["category_id"].to_numpy(),
        boxes=boxes.flatten().to_numpy().reshape(-1, 4),
        crowd=crowd.to_numpy(),
        identity=None if identity is None else identity.cast(pa.string()),
        nobody=_is_nobody(identity, len(table)),
        misnamed=np.zeros(len(table), bool),
    )


def _blank_is_null(identity: pa.Array) -> pa.Array:
    if not pa.types.is_string(identity.type):
        return identity
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(identity), ""), None, identity)


def _is_nobody(identity: pa.Array | None, count: int) -> np.ndarray:
    """Where there is no identity, or a negative number, as which datasets mark the unknown."""
    if identity is None:
        return np.ones(count, bool)
    if pa.types.is_string(identity.type):
        negative = pc.match_substring_regex(identity, NEGATIVE)
    else:
        negative = pc.less(identity, 0)
    return np.asarray(pc.fill_null(negative, True).to_numpy(zero_copy_only=False))


def _is_text(part: Part, key: str) -> bool:
    """Whether the first value of the key is a string."""
    mark = json.dumps(key).encode()
    at = part.text.find(mark)
    return at >= 0 and part.text[at + len(mark) : at + len(mark) + 8].lstrip(b" \t\r\n:").startswith(b'"')


def _one_by_one(entries: Sequence[Any], rows: np.ndarray, identity_key: str | None) -> Annotations:
    identity, misnamed = None, np.zeros(len(entries), bool)
    if identity_key is not None:
        found = [_identity(entry.get(identity_key)) for entry in entries]
        identity = pa.array([text for text, _ in found], pa.string())
        misnamed = np.array([fault for _, fault in found], bool)
    names = [as_text(entry.get("id", row)) for entry, row in zip(entries, rows.tolist(), strict=True)]
    return Annotations(
        rows=rows,
        names=pa.array(names, pa.string()),
        images=np.array([entry["image_id"] for entry in entries], np.int64),
        categories=np.array([entry["category_id"] for entry in entries], np.int64),
        boxes=np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4),
        crowd=np.array([entry.get("iscrowd") in (1, True) for entry in entries], bool),
        identity=identity,
        nobody=_is_nobody(identity, len(entries)) & ~misnamed,
        misnamed=misnamed,
    )


def _identity(value: Any) -> tuple[str | None, bool]:
    """An identity as text, and whether it cannot be one. Null, NaN and blank text name nobody."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None, False
    if isinstance(value, str):
        return (as_text(value) if value.strip() else None), False
    if isinstance(value, float) and value.is_integer():  # as tables with gaps write whole numbers
        return str(int(value)), False
    return as_text(value), type(value) is not int


def as_text(value: Any) -> str:
    return str(value).encode("utf-8", "replace").decode()


def _fault(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "an annotation is no object"
    for key in ("image_id", "category_id"):
        value = entry.get(key)
        if type(value) is not int or abs(value) > LARGEST_ID:
            return f"{key} is no number of an entry: {str(value)[:40]!r}"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(type(v) in (int, float) for v in box):
        return f"bbox is not four numbers: {str(box)[:60]!r}"
    return "bbox is out of range" if any(abs(v) > LARGEST_NUMBER for v in box) else None


def carries(part: Part, key: str) -> bool:
    """Whether any annotation of the part has the key."""
    return any(isinstance(entry, dict) and key in entry for entry in part.elements())


class SeenIds:
    """The annotation ids of a file so far. They are whole numbers that ascend, as a rule, and then cost 8
    bytes each and no look-up.
    """

    def __init__(self) -> None:
        self._numbers: list[np.ndarray] = []
        self._largest = -(1 << 63)
        self._texts: set[str] = set()

    def repeated(self, names: pa.Array) -> np.ndarray:
        """(n,) bool: which of the ids, text or whole numbers, were there before, in an earlier part or in
        this one. Adds them.
        """
        if pa.types.is_integer(names.type):
            return self._repeated_numbers(names.to_numpy())
        numeric = pc.match_substring_regex(names, WHOLE_NUMBER).to_numpy(zero_copy_only=False)
        numbers, texts = names.filter(pa.array(numeric)), names.filter(pa.array(~numeric))
        repeated = np.zeros(len(names), bool)
        repeated[numeric] = self._repeated_numbers(numbers.cast(pa.int64()).to_numpy())
        repeated[~numeric] = self._repeated_texts(texts.to_pylist())
        return repeated

    def _repeated_numbers(self, ids: np.ndarray) -> np.ndarray:
        if not len(ids):
            return np.zeros(0, bool)
        if ids[0] > self._largest and (ids[1:] > ids[:-1]).all():
            repeated, new = np.zeros(len(ids), bool), ids.copy()  # of its own: not a view that keeps a part
        else:
            new, first = np.unique(ids, return_index=True)
            repeated = np.ones(len(ids), bool)
            repeated[first] = False
            if len(self._numbers) > 1:
                self._numbers = [np.sort(np.concatenate(self._numbers), kind="stable")]
            for before in self._numbers:
                at = np.minimum(np.searchsorted(before, ids), len(before) - 1)
                repeated |= before[at] == ids
        self._numbers.append(new)
        self._largest = max(self._largest, int(ids.max()))
        return repeated

    def _repeated_texts(self, names: list[str]) -> np.ndarray:
        repeated = np.zeros(len(names), bool)
        for index, name in enumerate(names):
            repeated[index] = name in self._texts
            self._texts.add(name)
        return repeated
