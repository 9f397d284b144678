"""Pictures for the page: crops of people and whole scenes, as small JPEG data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

from PIL import Image

from data_catalog.errors import CatalogError
from data_catalog.images import ImageFile, Unreadable
from flows.errors import StageError
from flows.report.content import Corners

CROP_SIZE = (96, 192)
"""Maximum width and height of a crop, in pixels."""
SCENE_SIZE = (880, 660)
_QUALITY = 78


Crops = dict[tuple[ImageFile, Corners], Image.Image]


def crop_people(wanted: Mapping[ImageFile, Sequence[Corners]]) -> Crops:
    """Crops of all wanted boxes, clipped to the image. Opens each image once.

    Raises StageError if an image cannot be read.
    """
    crops = {}
    for file, boxes in wanted.items():
        whole = read_picture(file)
        for box in boxes:
            crops[file, box] = fitted(whole.crop(_clipped(box, whole.size)), CROP_SIZE)
    return crops


def as_data_uri(image: Image.Image) -> str:
    """The image as a JPEG in a `data:` URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def read_picture(file: ImageFile) -> Image.Image:
    """The whole image. Raises StageError if it cannot be read."""
    try:
        return file.rgb()
    except CatalogError as error:
        raise StageError(
            f"report: the test image {file.path} is missing; restore it, or ingest the dataset again"
        ) from error
    except Unreadable as error:
        raise StageError(f"report: {file.path} cannot be read: {error}") from error


def _clipped(box: Corners, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box in whole pixels inside the image, at least one pixel wide and high."""
    width, height = size
    x1 = min(max(round(box[0]), 0), width - 1)
    y1 = min(max(round(box[1]), 0), height - 1)
    return x1, y1, min(max(round(box[2]), x1 + 1), width), min(max(round(box[3]), y1 + 1), height)


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A copy that fits into `size`, width and height in pixels; never larger."""
    shrunk = image.copy()
    shrunk.thumbnail(size, Image.Resampling.LANCZOS)
    return shrunk
