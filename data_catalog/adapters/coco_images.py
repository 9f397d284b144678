"""COCO images in columns: by Arrow's JSON reader, and one by one where that finds them irregular."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.adapters.coco_columns import (
    Ids,
    as_text,
    has_key,
    mapped,
    read_columns,
    value_at,
    whole_column,
)
from data_catalog.files import path_fault, plain_name, suspicious
from data_catalog.ids import whole_below
from data_catalog.jsonstream import ArrayPart

LARGEST_SIDE, LARGEST_CAMERA = 1 << 20, 1 << 15


@dataclass(frozen=True)
class ImageColumns:
    """Columns of equal length. `optional` are width, height, camera_id and sequence_id, as far as asked for;
    `carried` are the keys that some image had.
    """

    ids: np.ndarray
    names: pa.Array
    sequences: pa.Array
    optional: dict[str, Any]
    carried: set[str]


def read_images(
    part: ArrayPart, first_row: int, keys: Mapping[str, str | None], ids: Ids
) -> tuple[ImageColumns, list[tuple[int, str]], int]:
    """Images of a part, (row, why) of those that are unusable, and how many there were in all.

    `keys` gives the keys of `sequence_id` and `camera_id`, None for none; they may be paths of keys.

    Raises:
        CatalogError: when the part is not JSON.
    """
    quick = _by_arrow(part, keys, ids)
    if quick is not None:
        return quick, [], len(quick.ids)
    entries = part.elements()
    taken: list[tuple[Any, int, str]] = []
    unusable: list[tuple[int, str]] = []
    for row, entry in enumerate(entries, start=first_row):
        try:
            taken.append((entry, *_id_and_name(entry, ids)))
        except ValueError as error:
            unusable.append((row, str(error)))
    return _one_by_one(taken, keys), unusable, len(entries)


def spelled(name: str) -> str:
    """An image's name without `./` and `\\`. Accents stay as they are written: the name is the image's id."""
    return plain_name(name) if "\\" in name or "./" in name or "//" in name else name


def _by_arrow(part: ArrayPart, keys: Mapping[str, str | None], ids: Ids) -> ImageColumns | None:
    """None when a value is missing, or not as it usually is."""
    sequence_key, camera_key = keys["sequence_id"], keys["camera_id"]
    asked = [key for key in (sequence_key, camera_key) if key]
    wanted = list(dict.fromkeys(["id", "file_name", "width", "height", *asked]))
    table = read_columns(part, wanted) if part.count else None
    if table is None or table["file_name"].null_count or not pa.types.is_string(table["file_name"].type):
        return None
    numbers, names = ids.numbers(table["id"]), table["file_name"]
    if numbers is None or suspicious(names).any():
        return None
    optional = {name: _limited(table[name], LARGEST_SIDE) for name in ("width", "height")}
    optional["camera_id"] = _limited(table[camera_key], LARGEST_CAMERA) if camera_key else None
    sequences = pa.nulls(part.count, pa.string())
    if sequence_key:
        sequences = mapped(table[sequence_key], _sequence, pa.string())
    if any(table[key].null_count == part.count for key in asked):  # whether it is there is to be seen
        return None
    optional["sequence_id"] = sequences
    return ImageColumns(numbers, names, sequences, optional, set(asked))


def _limited(column: pa.Array, limit: int) -> pa.Array:
    """Whole numbers from 0 to below the limit, null for all others."""
    numbers = whole_column(column)
    if numbers is None:
        numbers = pa.array([whole_below(value, limit) for value in column.to_pylist()], pa.int64())
    sound = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, limit))
    return pc.if_else(sound, numbers, None).cast(pa.int32())


def _one_by_one(taken: list[tuple[Any, int, str]], keys: Mapping[str, str | None]) -> ImageColumns:
    entries = [entry for entry, _, _ in taken]
    sequences = [_sequence(value_at(entry, keys["sequence_id"])) for entry in entries]
    optional = {
        "width": [whole_below(entry.get("width"), LARGEST_SIDE) for entry in entries],
        "height": [whole_below(entry.get("height"), LARGEST_SIDE) for entry in entries],
        "camera_id": [whole_below(value_at(entry, keys["camera_id"]), LARGEST_CAMERA) for entry in entries],
        "sequence_id": sequences,
    }
    return ImageColumns(
        np.array([number for _, number, _ in taken], np.int64),
        pa.array([name for _, _, name in taken], pa.string()),
        pa.array(sequences, pa.string()),
        optional,
        {key for key in keys.values() if key and any(has_key(entry, key) for entry in entries)},
    )


def _sequence(value: Any) -> str | None:
    """Null, NaN and blank, as tables are exported, are not sequences; 7 and 7.0 are one."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    is_nothing = value is None or value != value or not str(value).strip()
    return None if is_nothing else as_text(value)


def _id_and_name(image: Any, ids: Ids) -> tuple[int, str]:
    """Raise ValueError for an image that is unusable."""
    if not isinstance(image, dict):
        raise ValueError("an image is not an object")
    try:
        number = ids.number(image.get("id"))
    except ValueError as error:
        raise ValueError(f"its id: {error}") from None
    name = image.get("file_name")
    if not isinstance(name, str):
        raise ValueError("it has no file_name")
    name = spelled(name)
    fault = path_fault(name)
    if fault is not None:
        raise ValueError(f"{fault}: {name[:80]!r}")
    return number, name
