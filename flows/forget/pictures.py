"""Whether a picture on a page shows a region of an image file: by its pixels."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_catalog.errors import CatalogError
from data_catalog.images import ImageFile, Unreadable
from flows.forget.trace import Corners
from personsearch_core.drawing import cropped

_URI = re.compile(rb"data:image/[a-z+]+;base64,([A-Za-z0-9+/=]+)")
Look = tuple[float, np.ndarray]
"""The logarithm of a picture's width by its height, and its pixels in grey at one size, less their mean."""
_LOOK = (24, 48)
_SAME = 0.97
"""The minimum correlation of two pictures of the same, one of them after JPEG."""
_SAME_SHAPE = 0.06
"""How much the logarithm of width by height may differ; a crop of few pixels is rounded much."""
_SMALLEST = 6
"""Pixels: a region that is narrower or lower on a picture of the whole shows no one."""


@dataclass(frozen=True, eq=False)
class _Known:
    """An image that shows the subject, by its looks: whole, and of each region. Pixels are not kept: a person
    may be on thousands of images."""

    width: int
    whole: Look
    regions: Mapping[Corners, Look]

    @classmethod
    def of(cls, whole: Image.Image, regions: Iterable[Corners]) -> _Known:
        return cls(whole.width, _look(whole), {box: _look(cropped(whole, box)) for box in regions})

    def is_seen(self, picture: Image.Image, look: Look) -> bool:
        """Whether a picture is a crop of one of the regions, or the whole image with one that can be seen."""
        if any(_is_same(look, crop) for crop in self.regions.values()):
            return True
        # Whole images with and without a region that is painted over are much alike: a low bar.
        if not _is_same(look, self.whole, at_least=0.5):
            return False
        scale = picture.width / self.width
        parts = (
            (cropped(picture, [scale * side for side in box]), crop) for box, crop in self.regions.items()
        )
        return any(
            min(part.size) >= _SMALLEST and _correlation(_look(part)[1], crop[1]) >= 0.9
            for part, crop in parts
        )


class Pictures:
    """The regions of image files that show a subject. Files that cannot be read are left out, and counted."""

    def __init__(self, regions: Mapping[ImageFile, Iterable[Corners]]) -> None:
        self._known: list[_Known] = []
        self.unreadable = 0
        for file, boxes in regions.items():
            try:
                self._known.append(_Known.of(file.rgb(), boxes))
            except (CatalogError, Unreadable):
                self.unreadable += 1

    def on_page(self, page: bytes) -> int:
        """How many of a page's pictures show the subject."""
        looks = ((picture, _look(picture)) for picture in pictures_of(page))
        return sum(any(known.is_seen(*each) for known in self._known) for each in looks)


def pictures_of(page: bytes) -> Iterator[Image.Image]:
    """The pictures that a page holds as `data:` URIs."""
    for found in _URI.finditer(page):
        try:
            yield Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")
        except (UnidentifiedImageError, ValueError, OSError):
            continue  # not a picture that Pillow reads, such as SVG


def _look(picture: Image.Image) -> Look:
    grey = np.asarray(picture.convert("L").resize(_LOOK, Image.Resampling.BOX), np.float64)
    return float(np.log(picture.width / picture.height)), grey - grey.mean()


def _is_same(one: Look, other: Look, at_least: float = _SAME) -> bool:
    return abs(one[0] - other[0]) < _SAME_SHAPE and _correlation(one[1], other[1]) >= at_least


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """1 for equal pictures, whatever their brightness and contrast; 0 for one without any contrast."""
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / size if size > 1e-6 else 0.0
