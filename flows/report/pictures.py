"""Pictures for the page: crops of people and whole scenes, as small JPEG data URIs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from data_catalog.errors import CatalogError
from data_catalog.images import ImageFile, Unreadable
from flows.errors import StageError
from flows.report.content import Corners
from personsearch_core.drawing import cropped, fitted

CROP_SIZE = (96, 192)
"""Maximum width and height of a crop, in pixels."""
SCENE_SIZE = (880, 660)


HIDDEN = (128, 128, 128)
"""The colour of regions that show forgotten people."""

Crops = dict[tuple[ImageFile, Corners], Image.Image]
Hidden = Mapping[ImageFile, Sequence[Corners]]
"""By image, the regions that show forgotten people."""


def crop_people(wanted: Mapping[ImageFile, Sequence[Corners]], hidden: Hidden) -> Crops:
    """Crops of all wanted boxes, clipped to the image. Opens each image once.

    Raises StageError if an image cannot be read.
    """
    crops = {}
    for file, boxes in wanted.items():
        whole = read_picture(file, hidden.get(file, ()))
        for box in boxes:
            crops[file, box] = fitted(cropped(whole, box), CROP_SIZE)
    return crops


def read_picture(file: ImageFile, hidden: Sequence[Corners] = ()) -> Image.Image:
    """The whole image, with `hidden` regions painted over. Raises StageError if it cannot be read."""
    try:
        whole = file.rgb()
    except CatalogError as error:
        raise StageError(
            f"report: the test image {file.path} is missing; restore it, or ingest the dataset again"
        ) from error
    except Unreadable as error:
        raise StageError(f"report: {file.path} cannot be read: {error}") from error
    pen = ImageDraw.Draw(whole)
    for x1, y1, x2, y2 in hidden:
        pen.rectangle((math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)), fill=HIDDEN)
    return whole
