"""COCO annotations in columns: by Arrow's JSON reader, and one by one where that finds them irregular."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.adapters.coco_columns import (
    LARGEST_NUMBER,
    Ids,
    as_text,
    boxes_column,
    flag,
    flags,
    has_key,
    mapped,
    nan_is_null,
    read_columns,
    value_at,
    whole_column,
)
from data_catalog.ids import identity, number
from data_catalog.jsonstream import ArrayPart

NEGATIVE = r"^-\s*[0-9]"
WHOLE_NUMBER = r"^(0|-?[1-9][0-9]{0,17})$"


@dataclass(frozen=True)
class Annotations:
    """Columns of equal length; `rows` counts from 1 in the file, `boxes` are x, y, w, h.

    `names` are the annotations' ids: all whole numbers, or all as text. `images` and `categories` are numbers
    that `Ids` gave. `crowd` and `ignore` are what `iscrowd` and `ignore` say.

    `identity` holds the values of the key that was asked for, as text, null where no one is named; None
    if no key was asked for. `anonymous` marks unknown people, `misnamed` values that cannot be an identity.
    """

    rows: np.ndarray
    names: pa.Array
    images: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    ignore: np.ndarray
    identity: pa.Array | None
    anonymous: np.ndarray
    misnamed: np.ndarray

    @property
    def ignored(self) -> np.ndarray:
        """(n,) bool: which are ignore regions."""
        return np.asarray(self.crowd | self.ignore)

    def take(self, which: np.ndarray) -> Annotations:
        """The annotations at these positions."""
        at = pa.array(which)
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, value in values.items():
            if value is not None:
                values[name] = value.take(at) if isinstance(value, pa.Array) else value[which]
        return Annotations(**values)


class AnnotationReader:
    """Reads a file's annotations, part by part. `images` and `categories` are the ids that the file gave to
    these; `identity_key` may be a path of keys.
    """

    def __init__(self, images: Ids, categories: Ids, identity_key: str | None) -> None:
        self.images = images
        self.categories = categories
        self.key = identity_key
        self.key_is_missing = identity_key is not None
        """Whether no annotation had the key so far."""
        self.count = 0
        """Annotations read so far."""

    def read(self, part: ArrayPart) -> tuple[Annotations, list[tuple[int, str]]]:
        """Annotations of a part, and (row, why) of those that are unusable.

        Raises:
            CatalogError: when the part is not JSON.
        """
        first_row = self.count + 1
        found, unusable = self._by_arrow(part, first_row), list[tuple[int, str]]()
        if found is not None:
            self.count += len(found.rows)
        else:
            entries = part.elements()
            self.count += len(entries)
            found, unusable = self._one_by_one(entries, first_row)
        if self.key_is_missing:
            self.key_is_missing = not self._has_key(part, found)
        return found, unusable

    def _has_key(self, part: ArrayPart, found: Annotations) -> bool:
        if found.identity is not None and found.identity.null_count < len(found.identity):
            return True
        return any(has_key(entry, self.key or "") for entry in part.elements())

    def _by_arrow(self, part: ArrayPart, first_row: int) -> Annotations | None:
        """None when a value is missing, or not written as in the other annotations."""
        asked = [] if self.key is None else [self.key]
        keys = dict.fromkeys(["id", "image_id", "category_id", "iscrowd", "ignore", *asked])
        table = read_columns(part, list(keys), ["bbox"])
        if table is None:
            return None
        boxes = boxes_column(table["bbox"])
        crowd, ignore = flags(table["iscrowd"]), flags(table["ignore"])
        rows = np.arange(first_row, first_row + part.count)
        names = _names(table["id"], rows)
        images = self.images.numbers(table["image_id"])
        categories = self.categories.numbers(table["category_id"])
        named = (None, np.ones(len(rows), bool)) if self.key is None else _identities(table[self.key])
        if boxes is None or crowd is None or ignore is None or names is None or images is None:
            return None
        if categories is None or named is None:
            return None
        people, anonymous = named
        misnamed = np.zeros(len(rows), bool)
        return Annotations(rows, names, images, categories, boxes, crowd, ignore, people, anonymous, misnamed)

    def _one_by_one(self, entries: list[Any], first_row: int) -> tuple[Annotations, list[tuple[int, str]]]:
        rows: list[int] = []
        taken: list[tuple[Any, ...]] = []
        unusable: list[tuple[int, str]] = []
        for row, entry in enumerate(entries, start=first_row):
            try:
                taken.append(self._entry(entry, row))
            except ValueError as error:
                unusable.append((row, str(error)))
            else:
                rows.append(row)
        names, images, categories, boxes, crowd, ignore, people, misnamed = (
            zip(*taken, strict=True) if taken else ((),) * 8
        )
        named = None if self.key is None else pa.array(people, pa.string())
        wrong = np.array(misnamed, bool)
        found = Annotations(
            rows=np.array(rows, np.int64),
            names=pa.array(names, pa.string()),
            images=np.array(images, np.int64),
            categories=np.array(categories, np.int64),
            boxes=np.array(boxes, np.float64).reshape(-1, 4),
            crowd=np.array(crowd, bool),
            ignore=np.array(ignore, bool),
            identity=named,
            anonymous=_is_anonymous(named, len(rows)) & ~wrong,
            misnamed=wrong,
        )
        return found, unusable

    def _entry(self, entry: Any, row: int) -> tuple[Any, ...]:
        """One annotation's values, in the order of `Annotations` from `names` on.

        Raises:
            ValueError: when it is unusable.
        """
        if not isinstance(entry, dict):
            raise ValueError("an annotation is not an object")
        values: list[Any] = [_name(entry.get("id"), row)]
        readers = (("image_id", self.images.number), ("category_id", self.categories.number))
        for key, read in (*readers, ("bbox", _box), ("iscrowd", flag), ("ignore", flag)):
            try:
                values.append(read(entry.get(key)))
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
        return (*values, *_identity(value_at(entry, self.key)))


def _names(column: pa.Array, rows: np.ndarray) -> pa.Array | None:
    """Annotations' ids as whole numbers or as texts; their rows where none has an id."""
    if column.null_count:
        return pa.array(rows) if column.null_count == len(column) else None
    return column if pa.types.is_string(column.type) else whole_column(column)


def _name(value: Any, row: int) -> str:
    if value is None:
        return str(row)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return as_text(value)


def _box(value: Any) -> list[float]:
    if isinstance(value, str):
        value = re.split(r"[\s,;]+", value.strip(" \t\r\n[]()"))
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"not four numbers: {str(value)[:60]!r}")
    box = [each if isinstance(each, float) else number(each) for each in value]
    if any(abs(each) > LARGEST_NUMBER for each in box):
        raise ValueError("out of range")
    return box


def _identities(column: pa.Array) -> tuple[pa.Array, np.ndarray] | None:
    """Identities as text and where they are unknown; None when one needs a closer look."""
    if pa.types.is_string(column.type):
        try:
            named = mapped(column, _named, pa.string())
        except ValueError:
            return None
    else:
        numbers = whole_column(nan_is_null(column))
        if numbers is None:
            return None
        named = numbers.cast(pa.string())
    return named, _is_anonymous(named, len(named))


def _is_anonymous(named: pa.Array | None, count: int) -> np.ndarray:
    """True where the identity is missing or negative, which is how datasets mark unknown people."""
    if named is None:
        return np.ones(count, bool)
    negative = pc.match_substring_regex(named, NEGATIVE)
    return np.asarray(pc.fill_null(negative, True).to_numpy(zero_copy_only=False))


def _named(value: Any) -> str | None:
    """An identity as text, negative numbers too; None where no one is named.

    Raises:
        ValueError: when it cannot be an identity.
    """
    known = identity(value)
    if known is not None or value is None or (isinstance(value, float) and math.isnan(value)):
        return known
    text = as_text(int(value) if isinstance(value, float) else value).strip()
    return None if text.lower() in ("", "nan") else text


def _identity(value: Any) -> tuple[str | None, bool]:
    """An identity as text, and whether it cannot be one."""
    try:
        return _named(value), False
    except ValueError:
        return as_text(value), True


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
