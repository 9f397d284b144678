"""A protocol's queries, each joined to the annotated box that it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.row_tables import COORDINATES, corners, with_column
from data_catalog.schema import INVALID, REJECTS

if TYPE_CHECKING:
    import pyarrow.dataset as ds

SAME_BOX_IOU = 0.5
QUERY_IMAGE_UNKNOWN = "query_image_unknown"


@dataclass(frozen=True)
class JoinedQueries:
    """Queries with `box_id`, null where no box of that person is there; rejects of unknown images."""

    queries: pa.Table
    rejects: pa.Table


def join_queries(boxes: ds.Dataset, images: pa.Table, queries: pa.Table) -> JoinedQueries:
    """Give each query the box of its image and person that it overlaps best, at an IoU of 0.5 or more."""
    known = pc.is_in(queries["image_id"], value_set=images["image_id"].combine_chunks())
    lost = queries.filter(pc.invert(known))
    queries = queries.filter(known)
    if not len(queries):
        return JoinedQueries(queries, _rejects(lost))
    wanted = pc.field("image_id").isin(queries["image_id"].unique()) & pc.field("person_id").is_valid()
    columns = ["box_id", "image_id", "person_id", *COORDINATES]
    candidates = boxes.to_table(columns=columns, filter=wanted)
    by_person: dict[tuple[str, str], list[int]] = {}
    pairs = zip(candidates["image_id"].to_pylist(), candidates["person_id"].to_pylist(), strict=True)
    for row, key in enumerate(pairs):
        by_person.setdefault(key, []).append(row)
    there = corners(candidates)
    names = candidates["box_id"].to_pylist()
    found: list[str | None] = []
    keys = zip(queries["image_id"].to_pylist(), queries["person_id"].to_pylist(), strict=True)
    for box, key in zip(corners(queries), keys, strict=True):
        rows = by_person.get(key, [])
        overlaps = _iou(box, there[rows]) if rows else np.zeros(1)
        found.append(names[rows[int(overlaps.argmax())]] if overlaps.max() >= SAME_BOX_IOU else None)
    return JoinedQueries(with_column(queries, "box_id", pa.array(found, pa.string())), _rejects(lost))


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    area = (box[2:] - box[:2]).prod()
    return np.asarray(shared / (area + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared))


def _rejects(lost: pa.Table) -> pa.Table:
    rows = [
        {
            **{name: query[name] for name in ("image_id", "source_unit", "source_file", "source_row")},
            "severity": INVALID,
            "code": QUERY_IMAGE_UNKNOWN,
            "detail": f"{query['protocol']}: the image of query {query['query_id']!r} "
            f"(person {query['person_id']!r}) is unknown",
        }
        for query in lost.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=REJECTS)
