"""Columns of the catalog in the images and annotations of a COCO file, as `exchange.coco` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError
from data_catalog.jsonstream import ArrayPart
from data_catalog.schema import BOXES, IMAGES, SCOPE_DATASET, SCOPE_SEQUENCE

CATALOG = "catalog"
IMAGE_KEYS = {
    "image_name": "image_id",
    "cam_id": "camera_id",
    "split": "split",
    "sequence_id": "sequence_id",
    "frame_index": "frame_index",
}
"""Keys of images beyond COCO's, and their columns."""
BOX_KEYS = {"source_category": "category"} | {
    name: name
    for name in (
        *("box_id", "category_raw", "ignore_reason", "person_id", "person_id_raw", "person_scope"),
        *("visibility", "visible_x1", "visible_y1", "visible_x2", "visible_y2", "hard"),
    )
}
"""Keys of annotations beyond COCO's, and their columns."""
_NOT_NULL = ("image_id", "split", "box_id", "category")


def image_columns(path: Path, part: ArrayPart) -> dict[str, pa.Array]:
    """The columns of a part's images by their names in the catalog, one value per object.

    Raises:
        CatalogError: when another program wrote the file.
    """
    return _columns(path, part, IMAGE_KEYS, IMAGES)


def box_columns(path: Path, part: ArrayPart) -> dict[str, pa.Array]:
    """The columns of a part's annotations, as `image_columns`."""
    found = _columns(path, part, BOX_KEYS, BOXES)
    scopes = pc.is_in(found["person_scope"], value_set=pa.array([SCOPE_DATASET, SCOPE_SEQUENCE, None]))
    if pc.all(scopes).as_py() is False:
        raise _refusal(path, "person_scope", f"is {SCOPE_DATASET}, {SCOPE_SEQUENCE} or null")
    return found


def _columns(path: Path, part: ArrayPart, keys: Mapping[str, str], schema: pa.Schema) -> dict[str, pa.Array]:
    entries = part.elements()
    found = {}
    for key, column in keys.items():
        kind = schema.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        try:
            found[column] = pa.array([entry[key] for entry in entries], kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, KeyError, TypeError) as error:
            raise _refusal(path, key, str(error)[:80]) from error
        if column in _NOT_NULL and (found[column].null_count or "" in found[column].unique().to_pylist()):
            raise _refusal(path, key, "is null or blank")
    return found


def _refusal(path: Path, key: str, fault: str) -> CatalogError:
    return CatalogError(
        f"{path}: option columns={CATALOG}: {key}: {fault}; the option is for files that `personsearch "
        "datasets export` wrote, so leave it out for others"
    )
