"""Collects CVAT's images and boxes, which come one by one, into blocks of rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from data_catalog.rows import Rows

FLUSH = 8_192
"""Boxes or images that are kept before they become a block of rows."""

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class CvatImage:
    """An image; `sequence` is the one that its tracks' identities are of."""

    image_id: str
    split: str
    sequence: str
    width: int | None
    height: int | None
    frame: int | None


@dataclass
class CollectedRows:
    """Images and boxes that are not yet rows, in columns; `row` counts shapes in the file from 1."""

    scope: str
    images: list[CvatImage] = field(default_factory=list)
    boxes_of: list[CvatImage] = field(default_factory=list)
    corners: list[Corners] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    ignored: list[bool] = field(default_factory=list)
    raw: list[str | None] = field(default_factory=list)
    persons: list[str | None] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether there is enough for a block."""
        return len(self.rows) >= FLUSH or len(self.images) >= FLUSH

    def add(
        self, image: CvatImage, corners: Corners, row: int, label: str, raw: str | None, person: str | None,
        *, ignored: bool,
    ) -> None:  # fmt: skip
        """A box; `person` is its identity in the catalog, `raw` as it stands in the file."""
        self.boxes_of.append(image)
        self.corners.append(corners)
        self.rows.append(row)
        self.labels.append(label)
        self.ignored.append(ignored)
        self.raw.append(raw)
        self.persons.append(None if ignored else person)

    def move_to(self, rows: Rows, *, with_sequences: bool) -> None:
        """Add all of it to `rows`, images before their boxes."""
        if self.images:
            ids = [image.image_id for image in self.images]
            rows.images(
                ids,
                ids,
                [image.split for image in self.images],
                width=[image.width for image in self.images],
                height=[image.height for image in self.images],
                sequence_id=[image.sequence if with_sequences else None for image in self.images],
                frame_index=[image.frame if with_sequences else None for image in self.images],
            )
        if self.rows:
            pairs = zip(self.labels, self.ignored, strict=True)
            rows.boxes(
                [image.image_id for image in self.boxes_of],
                np.array(self.corners),
                [image.split for image in self.boxes_of],
                self.rows,
                category=self.labels,
                ignore=self.ignored,
                ignore_reason=[label if flag else None for label, flag in pairs],
                person_id=self.persons,
                person_id_raw=self.raw,
                person_scope=self.scope,
            )
