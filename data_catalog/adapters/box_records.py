"""Boxes that an adapter finds one by one, collected to become rows together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_catalog.row_tables import Column
from data_catalog.rows import Rows


@dataclass(frozen=True)
class BoxRecord:
    """A box of an image.

    corners
        x1, y1, x2, y2 as `Rows.boxes` takes them.
    row
        Of the source file, from 1.
    reason
        Why it is an ignore region; None for a person.
    person, raw
        Its identity in the catalog, and as it stands in the file.
    box_id
        By default `<image_id>#<row>`.
    """

    image_id: str
    split: str
    corners: Sequence[float]
    row: int
    category: str = "person"
    reason: str | None = None
    person: str | None = None
    raw: str | None = None
    box_id: str | None = None


def corners_of(xywh: Sequence[float]) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of x, y, width, height."""
    x, y, width, height = xywh
    return x, y, x + width, y + height


def add_boxes(rows: Rows, boxes: Sequence[BoxRecord], **more: Column) -> None:
    """Add boxes to rows, with `more` columns; ignore regions have no identity."""
    rows.boxes(
        [box.image_id for box in boxes],
        np.array([box.corners for box in boxes]),
        [box.split for box in boxes],
        [box.row for box in boxes],
        box_id=[box.box_id for box in boxes],
        category=[box.category for box in boxes],
        ignore=[box.reason is not None for box in boxes],
        ignore_reason=[box.reason for box in boxes],
        person_id=[None if box.reason is not None else box.person for box in boxes],
        person_id_raw=[box.raw for box in boxes],
        **more,
    )
