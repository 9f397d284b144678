"""COCO images in columns: by Arrow's JSON reader, and one by one where that finds them irregular."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.coco_annotations import LARGEST_ID, as_text, read_objects
from data_catalog.files import path_fault, suspicious
from data_catalog.jsonstream import Part

LARGEST_SIDE, LARGEST_CAMERA = 1 << 20, 1 << 15


@dataclass(frozen=True)
class Images:
    """Columns of equal length. `optional` are width, height, camera_id and sequence_id, as far as asked for;
    `carried` are the keys that some image had.
    """

    ids: np.ndarray
    names: pa.Array
    sequences: pa.Array
    optional: dict[str, Any]
    carried: set[str]


def read_images(
    part: Part, first_row: int, keys: Mapping[str, str | None]
) -> tuple[Images, list[tuple[int, str]], int]:
    """Images of a part, (row, why) of those that are unusable, and how many there were in all.

    `keys` gives the keys of `sequence_id` and `camera_id`, None for none.

    Raises:
        CatalogError: when the part is no JSON.
    """
    quick = None if any(keys.values()) else _by_arrow(part)
    if quick is not None:
        return quick, [], len(quick.ids)
    entries = part.elements()
    faults = [_fault(entry) for entry in entries]
    unusable = [(first_row + i, fault) for i, fault in enumerate(faults) if fault is not None]
    usable = [entry for entry, fault in zip(entries, faults, strict=True) if fault is None]
    return _one_by_one(usable, keys), unusable, len(entries)


def _by_arrow(part: Part) -> Images | None:
    """None when a value is missing, or not as it usually is."""
    sides = {"width": pa.int64(), "height": pa.int64()}
    table = read_objects(part, {"id": pa.int64(), "file_name": pa.string(), **sides})
    if table is None or not len(table) or table["id"].null_count or table["file_name"].null_count:
        return None
    ids, names = table["id"].to_numpy(), table["file_name"].combine_chunks()
    if (np.abs(ids) > LARGEST_ID).any() or suspicious(names).any():
        return None
    optional = {}
    for name in sides:
        side = table[name].combine_chunks()
        sound = pc.and_(pc.greater_equal(side, 0), pc.less(side, LARGEST_SIDE))
        optional[name] = pc.if_else(sound, side, None).cast(pa.int32())
    return Images(ids, names, pa.nulls(len(ids), pa.string()), optional, set())


def _one_by_one(entries: list[dict[str | None, Any]], keys: Mapping[str, str | None]) -> Images:
    sequence_key, camera_key = keys["sequence_id"], keys["camera_id"]
    sequences = [_sequence(entry.get(sequence_key)) for entry in entries]
    optional = {
        "width": [_whole(entry.get("width"), LARGEST_SIDE) for entry in entries],
        "height": [_whole(entry.get("height"), LARGEST_SIDE) for entry in entries],
        "camera_id": [_whole(entry.get(camera_key), LARGEST_CAMERA) for entry in entries],
        "sequence_id": sequences,
    }
    return Images(
        np.array([entry["id"] for entry in entries], np.int64),
        pa.array([entry["file_name"] for entry in entries], pa.string()),
        pa.array(sequences, pa.string()),
        optional,
        {key for key in keys.values() if key and any(key in entry for entry in entries)},
    )


def _sequence(value: Any) -> str | None:
    """Null, NaN and blank, as tables are exported, are no sequence."""
    is_nothing = value is None or value != value or not str(value).strip()
    return None if is_nothing else as_text(value)


def _fault(image: Any) -> str | None:
    if not isinstance(image, dict):
        return "an image is no object"
    if type(image.get("id")) is not int or abs(image["id"]) > LARGEST_ID:
        return f"its id is no whole number: {str(image.get('id'))[:40]!r}"
    name = image.get("file_name")
    if not isinstance(name, str):
        return "it has no file_name"
    fault = path_fault(name)
    return None if fault is None else f"{fault}: {name[:80]!r}"


def _whole(value: Any, limit: int) -> int | None:
    return value if type(value) is int and 0 <= value < limit else None
