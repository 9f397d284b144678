"""An image of the catalog with its boxes, identities and ignore regions drawn."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
from PIL import Image, ImageDraw

from data_catalog.errors import CatalogError, UnknownImage
from data_catalog.files import path_fault
from data_catalog.image_ids import near_ids, spelled_id
from data_catalog.images import ImageFile, Unreadable
from data_catalog.snapshot import Snapshot

KNOWN, UNKNOWN, IGNORED = (40, 170, 60), (240, 160, 20), (150, 150, 150)


def draw_image(snapshot: Snapshot, image_id: str, root: Path) -> Image.Image:
    """The image with green boxes of known people and their ids, orange ones of unknown, crossed grey to
    ignore.

    Raises:
        UnknownImage: when the snapshot has no image of that id.
        CatalogError: If the file is missing under the root, or damaged.
    """
    image_id = spelled_id(snapshot, image_id)
    found = snapshot.table("images", ["rel_path", "decoding"], pc.field("image_id") == image_id)
    if not len(found):
        near = near_ids(snapshot, image_id)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "no name is close to it"
        raise UnknownImage(f"{snapshot.name}: no image {image_id!r}; {hint}")
    rel_path, decoding = found["rel_path"][0].as_py(), found["decoding"][0].as_py()
    fault = path_fault(rel_path)
    if fault is not None:
        raise CatalogError(f"{snapshot.name}: {fault}: {rel_path!r}")
    if not (root / rel_path).exists():
        raise CatalogError(f"{root / rel_path} does not exist; is {root} the folder that was ingested?")
    try:
        canvas = ImageFile.of_row(root, rel_path, decoding).rgb()
    except Unreadable as error:
        raise CatalogError(f"{root / rel_path}: {error}") from error
    pen = ImageDraw.Draw(canvas)
    columns = ["x1", "y1", "x2", "y2", "ignore", "ignore_reason", "person_id"]
    for box in snapshot.table("boxes", columns, pc.field("image_id") == image_id).to_pylist():
        right, low = max(box["x2"] - 1, box["x1"]), max(box["y2"] - 1, box["y1"])  # narrower than a pixel
        corners = (box["x1"], box["y1"], right, low)
        colour = IGNORED if box["ignore"] else KNOWN if box["person_id"] is not None else UNKNOWN
        pen.rectangle(corners, outline=colour, width=2)
        if box["ignore"]:
            pen.line(corners, fill=colour)
        label = box["ignore_reason"] if box["ignore"] else box["person_id"]
        if label:
            pen.text((corners[0] + 3, corners[1] + 2), str(label), fill=colour)
    return canvas
