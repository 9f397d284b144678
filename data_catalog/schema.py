"""The columns of a snapshot's tables, as pyarrow schemas.

Boxes are in pixels of the original image, 0-based, x2 and y2 exclusive, unclipped. An unknown identity is
null. Identifiers (`image_id`, `box_id`, `person_id`) are strings, unique in the dataset, and depend on the
source alone, so they stay the same when files are added. `source_unit` names what was read at once, an
annotation file as a rule: a later ingest takes the rows of a unit that did not change by it.
"""

from __future__ import annotations

import pyarrow as pa

NAME = pa.dictionary(pa.int32(), pa.string())
"""Few distinct values, many rows."""

IMAGES = pa.schema(
    [
        pa.field("dataset", NAME, nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("rel_path", pa.string(), nullable=False),
        pa.field("split", NAME, nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("camera_id", pa.int16()),
        pa.field("sequence_id", NAME),
        pa.field("frame_index", pa.int32()),
        pa.field("n_boxes", pa.int32(), nullable=False),
        pa.field("source_unit", NAME, nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("decoding", NAME),
        pa.field("stated_width", pa.int32()),
        pa.field("stated_height", pa.int32()),
    ]
)
"""Sizes are those of the image as it is decoded, after its EXIF orientation. `decoding` says what that does
beside reading 8 bits per channel as they are stored ("orientation 6", "orientation 6 ignored", "16 bits"),
null for nothing. The stated size is the annotation's where that differs; null where it agrees or is missing.
"""

BOXES = pa.schema(
    [
        pa.field("box_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", NAME, nullable=False),  # the image's, so that a split is read without a join
        pa.field("x1", pa.float32(), nullable=False),
        pa.field("y1", pa.float32(), nullable=False),
        pa.field("x2", pa.float32(), nullable=False),
        pa.field("y2", pa.float32(), nullable=False),
        pa.field("category", NAME, nullable=False),
        pa.field("category_raw", pa.int32()),
        pa.field("ignore", pa.bool_(), nullable=False),
        pa.field("ignore_reason", NAME),
        pa.field("person_id", pa.string()),
        pa.field("person_id_raw", pa.string()),
        pa.field("person_scope", NAME),
        pa.field("visibility", pa.float32()),
        pa.field("visible_x1", pa.float32()),
        pa.field("visible_y1", pa.float32()),
        pa.field("visible_x2", pa.float32()),
        pa.field("visible_y2", pa.float32()),
        pa.field("hard", pa.bool_()),
        pa.field("source_unit", NAME, nullable=False),
        pa.field("source_file", NAME, nullable=False),
        pa.field("source_row", pa.int32(), nullable=False),
    ]
)

QUERIES = pa.schema(
    [
        pa.field("protocol", NAME, nullable=False),
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("x1", pa.float32(), nullable=False),
        pa.field("y1", pa.float32(), nullable=False),
        pa.field("x2", pa.float32(), nullable=False),
        pa.field("y2", pa.float32(), nullable=False),
        pa.field("person_id", pa.string(), nullable=False),
        pa.field("box_id", pa.string()),
        pa.field("source_unit", NAME, nullable=False),
        pa.field("source_file", NAME, nullable=False),
        pa.field("source_row", pa.int32(), nullable=False),
    ]
)

GALLERY = pa.schema(
    [
        pa.field("protocol", NAME, nullable=False),
        pa.field("query_id", NAME, nullable=False),
        pa.field("image_id", NAME, nullable=False),
        pa.field("is_positive", pa.bool_(), nullable=False),
        pa.field("x1", pa.float32()),
        pa.field("y1", pa.float32()),
        pa.field("x2", pa.float32()),
        pa.field("y2", pa.float32()),
        pa.field("source_unit", NAME, nullable=False),
    ]
)

REJECTS = pa.schema(
    [
        pa.field("severity", NAME, nullable=False),
        pa.field("code", NAME, nullable=False),
        pa.field("image_id", pa.string()),
        pa.field("source_unit", NAME, nullable=False),
        pa.field("source_file", NAME, nullable=False),
        pa.field("source_row", pa.int32(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)

FINDING = pa.struct(
    [
        pa.field("level", pa.string(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)
"""What only the ingest could see: files left over, notes of the adapter."""

DATASETS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("adapter", pa.string(), nullable=False),
        pa.field("adapter_version", pa.int32(), nullable=False),
        pa.field("root_fingerprint", pa.string(), nullable=False),
        pa.field("edition", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("counts_expected", pa.map_(pa.string(), pa.int64()), nullable=False),
        pa.field("counts_found", pa.map_(pa.string(), pa.int64()), nullable=False),
        pa.field("findings", pa.list_(FINDING)),
    ]
)

TABLES: dict[str, pa.Schema] = {
    "images": IMAGES,
    "boxes": BOXES,
    "queries": QUERIES,
    "gallery": GALLERY,
    "rejects": REJECTS,
    "datasets": DATASETS,
}

EXCLUDED = "excluded"
"""Severity of a reject that the format's own rules say is not a person."""
INVALID = "invalid"
"""Severity of a reject that is damaged."""

SCOPE_DATASET = "dataset"
SCOPE_SEQUENCE = "sequence"
