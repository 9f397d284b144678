"""Views: the part of a snapshot that a stage takes as its input, with a digest of just that part.

A digest is over canonical rows: chosen columns in a fixed order of rows, whatever the layout on disk. It
leaves out the dataset's name and the files' paths, so renaming or moving a dataset changes no digest, and it
depends on no other split, protocol or reject.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError
from data_catalog.row_digests import digest_rows
from data_catalog.schema import BOXES, IMAGES
from data_catalog.snapshot import Snapshot

IMAGE_COLUMNS = ("image_id", "width", "height", "camera_id", "sequence_id")
"""What of an image a digest covers, beside its SHA-256 where pixels are used."""
BOX_COLUMNS = ("box_id", "image_id", "x1", "y1", "x2", "y2", "category", "ignore", "person_id")

LOW = "low"
OTHER_CATEGORY = "other_category"


@dataclass(frozen=True)
class BoxFilter:
    """Which boxes of a split count. Boxes that do not become ignore regions: they are people all the same.

    `min_height` is in pixels of the original image. `identified` alone drops rows: it keeps the boxes that
    have an identity and are no ignore region, as re-identification wants them.
    """

    min_height: float | None = None
    categories: tuple[str, ...] | None = None
    identified: bool = False


@dataclass(frozen=True)
class View:
    """A split of a snapshot, filtered."""

    snapshot: Snapshot
    split: str
    filter: BoxFilter = BoxFilter()

    @cached_property
    def images(self) -> pa.Table:
        """All images of the split, by image_id, with the columns of `schema.IMAGES`.

        Raises:
            CatalogError: when the snapshot has no such split.
        """
        table = self.snapshot.table("images", filter=pc.field("split") == self.split)
        if not len(table):
            known = ", ".join(sorted(self.snapshot.table("images", ["split"])["split"].unique().to_pylist()))
            raise CatalogError(f"{self.snapshot.name}: no images in split {self.split!r}; there is: {known}")
        return table.take(pc.sort_indices(table["image_id"]))

    @cached_property
    def boxes(self) -> pa.Table:
        """The split's boxes, by image and source row, with the columns of `schema.BOXES`."""
        table = self.snapshot.table("boxes", filter=self._where())
        return _filtered(_in_order(table, self.images["image_id"]), self.filter)

    def digest(self, *, pixels: bool) -> str:
        """SHA-256 over the view's rows and, with `pixels`, over the content of every image.

        Raises:
            CatalogError: with `pixels`, when the snapshot was made without images.
        """
        images = self.images.select(IMAGE_COLUMNS)
        if pixels:
            if self.images["sha256"].null_count:
                raise CatalogError(
                    f"{self.snapshot.name}: the snapshot was made without images and cannot be used for "
                    "training or detection; ingest it with its images"
                )
            images = images.append_column(IMAGES.field("sha256"), self.images["sha256"])
        total = hashlib.sha256(b"view 1")
        for table in (images, self.boxes.select(BOX_COLUMNS)):
            total.update(digest_rows(table).encode())
        return total.hexdigest()

    def _where(self) -> pc.Expression:
        where = pc.field("split") == self.split
        if self.filter.identified:
            where = where & pc.field("person_id").is_valid() & ~pc.field("ignore")
        return where


@dataclass(frozen=True)
class ProtocolView:
    """A protocol's queries and gallery rows, in the order of the protocol's file.

    `gallery` is empty where a rule gives the galleries, as in PRW (all test images but the query's).
    """

    protocol: str
    queries: pa.Table
    gallery: pa.Table

    def digest(self) -> str:
        """SHA-256 over the rows of both tables."""
        total = hashlib.sha256(b"protocol 1")
        for table in (self.queries, self.gallery):
            total.update(digest_rows(table.drop_columns(["protocol"])).encode())
        return total.hexdigest()


def protocol_view(snapshot: Snapshot, protocol: str) -> ProtocolView:
    """Queries and gallery of one protocol.

    Raises:
        CatalogError: when the snapshot has no such protocol.
    """
    queries = snapshot.table("queries", filter=pc.field("protocol") == protocol)
    if not len(queries):
        known = ", ".join(snapshot.protocols()) or "none"
        raise CatalogError(f"{snapshot.name}: no protocol {protocol!r}; there is: {known}")
    return ProtocolView(protocol, queries, snapshot.gallery(protocol))


def _in_order(boxes: pa.Table, image_ids: pa.ChunkedArray) -> pa.Table:
    """Boxes by the order of their images, then by source row and box_id."""
    image = pc.index_in(boxes["image_id"], value_set=image_ids).to_numpy()
    row = boxes["source_row"].to_numpy()
    later = (image[1:] > image[:-1]) | ((image[1:] == image[:-1]) & (row[1:] > row[:-1]))
    if later.all():
        return boxes
    by_name = pc.rank(boxes["box_id"], sort_keys="ascending").to_numpy()
    return boxes.take(pa.array(np.lexsort((by_name, row, image))))


def _filtered(boxes: pa.Table, wanted: BoxFilter) -> pa.Table:
    """Boxes that the filter does not want turned into ignore regions."""
    if wanted.categories is not None:
        among = pc.is_in(
            boxes["category"].cast(pa.string()), value_set=pa.array(wanted.categories, pa.string())
        )
        boxes = _ignored(boxes, pc.invert(among), OTHER_CATEGORY)
    if wanted.min_height is not None:
        low = pc.less(pc.subtract(boxes["y2"], boxes["y1"]), pa.scalar(wanted.min_height, pa.float32()))
        boxes = _ignored(boxes, low, LOW)
    return boxes.filter(pc.invert(boxes["ignore"])) if wanted.identified else boxes


def _ignored(boxes: pa.Table, which: pa.ChunkedArray, reason: str) -> pa.Table:
    newly = pc.and_(which, pc.invert(boxes["ignore"]))
    reasons = pc.if_else(newly, reason, boxes["ignore_reason"].cast(pa.string()))
    person_id = pc.if_else(newly, pa.scalar(None, pa.string()), boxes["person_id"])
    columns = {
        "ignore": pc.or_(boxes["ignore"], which),
        "ignore_reason": reasons.combine_chunks().dictionary_encode(),
        "person_id": person_id,
    }
    for name, values in columns.items():
        index = BOXES.get_field_index(name)
        boxes = boxes.set_column(index, BOXES.field(index), values)
    return boxes
