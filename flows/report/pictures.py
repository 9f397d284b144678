"""Pictures for the page: crops of people and whole scenes, as small JPEG data URIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from data_catalog.errors import CatalogError
from data_catalog.images import ImageFile, Unreadable
from flows.errors import StageError
from flows.report.content import Corners
from personsearch_core.drawing import cropped, fitted

CROP_SIZE = (96, 192)
"""Maximum width and height of a crop, in pixels."""
SCENE_SIZE = (880, 660)


Crops = dict[tuple[ImageFile, Corners], Image.Image]


def crop_people(wanted: Mapping[ImageFile, Sequence[Corners]]) -> Crops:
    """Crops of all wanted boxes, clipped to the image. Opens each image once.

    Raises StageError if an image cannot be read.
    """
    crops = {}
    for file, boxes in wanted.items():
        whole = read_picture(file)
        for box in boxes:
            crops[file, box] = fitted(cropped(whole, box), CROP_SIZE)
    return crops


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
