"""Views: the part of a snapshot that a stage takes as its input, with digests of just that part.

The digests are over canonical rows: the columns that the stage uses, in a fixed order of rows, whatever the
layout on disk. They leave out the dataset's name and the files' paths, so renaming or moving a dataset
changes no digest, and they depend on no other split, protocol or reject.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError
from data_catalog.forgotten import FORGOTTEN
from data_catalog.row_digests import digest_rows
from data_catalog.row_tables import ignored
from data_catalog.rules import DRAWN
from data_catalog.snapshot import Snapshot

Use = Literal["boxes", "people", "test", "truth"]
"""What a stage takes of a split: pixels and boxes; these and identities; these and the query boxes; or boxes,
identities, queries and galleries without pixels."""

_IMAGE_COLUMNS = ("image_id", "width", "height", "sha256")
_BOX_COLUMNS = ("image_id", "x1", "y1", "x2", "y2", "ignore")
_PEOPLE_COLUMNS = (*_BOX_COLUMNS, "box_id", "person_id")
_QUERY_BOX = ("image_id", "x1", "y1", "x2", "y2")

LOW = "low"


@dataclass(frozen=True)
class View:
    """A split of a snapshot, as a stage takes it.

    Parameters
    ----------
    snapshot
        The dataset's snapshot.
    split
        Name of the split.
    min_height
        Boxes shorter than this, in pixels of the original image, become ignore regions, since they are
        people, too.

    Examples
    --------
    >>> view = View(catalog["prw"].snapshot, "test")
    >>> len(view.images), sorted(view.digests("people"))
    (4, ['boxes', 'images'])
    """

    snapshot: Snapshot
    split: str
    min_height: float | None = None

    @cached_property
    def images(self) -> pa.Table:
        """All images of the split, by image_id, with the columns of `schema.IMAGES`.

        Raises:
            CatalogError: when the snapshot has no such split.
        """
        table = self.snapshot.table("images", filter=pc.field("split") == self.split)
        if not len(table):
            self.snapshot.require_splits([self.split])
        return table.take(pc.sort_indices(table["image_id"]))

    @cached_property
    def boxes(self) -> pa.Table:
        """The split's boxes, by image and source row, with the columns of `schema.BOXES`."""
        table = self.snapshot.table("boxes", filter=pc.field("split") == self.split)
        boxes = _in_order(table, self.images["image_id"])
        return boxes if self.min_height is None else _low_ignored(boxes, self.min_height)

    @cached_property
    def forgotten(self) -> pa.ChunkedArray:
        """Which of `boxes` show people that were forgotten."""
        reason = self.boxes["ignore_reason"].cast(pa.string())
        return pc.fill_null(pc.equal(reason, FORGOTTEN), False)

    @cached_property
    def query_boxes(self) -> pa.Table:
        """The distinct boxes that any protocol asks for in these images: image_id, x1 .. y2, in a fixed
        order.
        """
        return self.query_boxes_of(None)

    def query_boxes_of(self, protocols: Sequence[str] | None) -> pa.Table:
        """Likewise of these protocols alone; None for all."""
        wanted = None if protocols is None else pc.field("protocol").isin([*protocols])
        queries = self.snapshot.table("queries", list(_QUERY_BOX), wanted)
        mask = pc.is_in(queries["image_id"], value_set=self.images["image_id"])
        distinct = queries.filter(mask).group_by(list(_QUERY_BOX)).aggregate([])
        return distinct.sort_by([(name, "ascending") for name in _QUERY_BOX])

    @property
    def _image_columns(self) -> list[str]:
        """`decoding` counts only where it does something: other views' digests are older than it."""
        plain = self.images["decoding"].null_count == len(self.images)
        return [*_IMAGE_COLUMNS] if plain else [*_IMAGE_COLUMNS, "decoding"]

    def digests(self, use: Use, protocols: Sequence[str] = ()) -> dict[str, str]:
        """SHA-256 by table of the rows and columns that `use` covers; for `truth`, of these protocols, too.

        Raises:
            CatalogError: when the split or a protocol is not there, or pixels are used and were left out.
        """
        parts: dict[str, str] = {}
        if use == "truth":
            parts["images"] = digest_rows(self.images.select(["image_id", "camera_id"]))
            for protocol in protocols:
                parts[protocol] = protocol_view(self.snapshot, protocol).digest()
        else:
            if self.images["sha256"].null_count:
                raise CatalogError(
                    f"{self.snapshot.name}: its snapshot was made without images, so it cannot be used for "
                    "training or detection; ingest it with its images"
                )
            parts["images"] = digest_rows(self.images.select(self._image_columns))
        if use == "test":
            parts["queries"] = digest_rows(self.query_boxes)
        columns = _BOX_COLUMNS if use == "boxes" else _PEOPLE_COLUMNS
        parts["boxes"] = digest_rows(self.boxes.select(columns))
        if use == "test" and pc.any(self.forgotten).as_py():
            parts["forgotten"] = digest_rows(self.boxes.filter(self.forgotten).select(["box_id"]))
        return parts


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
        how = "; the dataset's `queries` rule makes it" if protocol == DRAWN else ""
        raise CatalogError(f"{snapshot.name}: no protocol {protocol!r}{how}; there is: {known}")
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


def _low_ignored(boxes: pa.Table, min_height: float) -> pa.Table:
    """Boxes shorter than `min_height` pixels turned into ignore regions."""
    low = pc.less(pc.subtract(boxes["y2"], boxes["y1"]), pa.scalar(min_height, pa.float32()))
    return ignored(boxes, pc.and_(low, pc.invert(boxes["ignore"])), LOW, ["person_id"])
