"""Collects CVAT's images and boxes, which come one by one, into blocks of rows."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_catalog.adapters.box_records import BoxRecord, add_boxes
from data_catalog.rows import Rows

FLUSH = 8_192
"""Boxes or images that are kept before they become a block of rows."""


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
    """Images and boxes that are not yet rows."""

    scope: str
    images: list[CvatImage] = field(default_factory=list)
    boxes: list[BoxRecord] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether there is enough for a block."""
        return len(self.boxes) >= FLUSH or len(self.images) >= FLUSH

    def move_to(self, rows: Rows, *, with_sequences: bool) -> None:
        """Add all of it to `rows`, images before their boxes."""
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
        add_boxes(rows, self.boxes, person_scope=self.scope)
