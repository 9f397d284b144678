"""Crops and scenes as JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from personsearch_core.drawing import cropped, fitted

SCENE_SIZE = (1600, 1200)
CROP_SIZE = (192, 384)
_QUALITY = 82


@dataclass(frozen=True)
class DrawnJpeg:
    """A JPEG, and the size of the picture before it was shrunk, which boxes refer to."""

    jpeg: bytes
    width: int
    height: int


def as_jpeg(picture: Image.Image, most: tuple[int, int] = SCENE_SIZE) -> DrawnJpeg:
    """A picture as JPEG, shrunk to at most (width, height); nothing of the file it came from is in it."""
    buffer = io.BytesIO()
    fitted(picture, most).save(buffer, "JPEG", quality=_QUALITY)
    return DrawnJpeg(buffer.getvalue(), picture.width, picture.height)


def crop_as_jpeg(picture: Image.Image, box: Sequence[float]) -> DrawnJpeg:
    """A person's crop."""
    return as_jpeg(cropped(picture, box), CROP_SIZE)
