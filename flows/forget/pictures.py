"""Whether a picture on a page shows a region of an image file: by its pixels."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_catalog.errors import CatalogError
from data_catalog.images import ImageFile, Unreadable
from flows.forget.trace import Corners
from personsearch_core.drawing import cropped

_URI = re.compile(rb"data:image/[a-z+]+;base64,([A-Za-z0-9+/=]+)")
_LOOK = (24, 48)
"""Pictures are compared at this size, in grey."""
_SAME = 0.97
"""The least correlation of two pictures of the same, one of them after JPEG."""
_SAME_SHAPE = 0.06
"""How much the logarithm of width by height may differ; a crop of few pixels is rounded much."""
_SMALLEST = 6
"""Pixels: a region that is narrower or lower on a picture of the whole shows no one."""


@dataclass(frozen=True, eq=False)
class _Known:
    """An image that shows the subject: its looks, whole, and of each region."""

    whole: Image.Image
    regions: tuple[Corners, ...]

    @cached_property
    def crops(self) -> list[tuple[float, np.ndarray]]:
        return [_shape_and_look(cropped(self.whole, box)) for box in self.regions]

    @cached_property
    def look(self) -> tuple[float, np.ndarray]:
        return _shape_and_look(self.whole)


class Pictures:
    """The regions of image files that show a subject. Files that cannot be read are left out, and counted."""

    def __init__(self, regions: Mapping[ImageFile, Iterable[Corners]]) -> None:
        self._known: list[_Known] = []
        self.unreadable = 0
        for file, boxes in regions.items():
            try:
                self._known.append(_Known(file.rgb(), tuple(boxes)))
            except (CatalogError, Unreadable):
                self.unreadable += 1

    def on_page(self, page: bytes) -> int:
        """How many of a page's pictures show the subject."""
        return sum(self.shows(picture) for picture in pictures_of(page))

    def shows(self, picture: Image.Image) -> bool:
        """Whether a picture is a crop of one of the regions, or a whole image in which one can be seen."""
        shape, look = _shape_and_look(picture)
        for known in self._known:
            if any(_is_same(shape, look, *crop) for crop in known.crops):
                return True
            # Whole images with and without a region that is painted over are much alike: a low bar.
            if _is_same(shape, look, *known.look, at_least=0.5) and self._shows_region(picture, known):
                return True
        return False

    def _shows_region(self, picture: Image.Image, known: _Known) -> bool:
        scale = picture.width / known.whole.width
        for box, (_, look) in zip(known.regions, known.crops, strict=True):
            part = cropped(picture, [value * scale for value in box])
            if min(part.size) >= _SMALLEST and _correlation(_shape_and_look(part)[1], look) >= 0.9:
                return True
        return False


def pictures_of(page: bytes) -> Iterator[Image.Image]:
    """The pictures that a page holds as `data:` URIs."""
    for found in _URI.finditer(page):
        try:
            yield Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")
        except (UnidentifiedImageError, ValueError, OSError):
            continue  # not a picture that Pillow reads, such as SVG


def _shape_and_look(picture: Image.Image) -> tuple[float, np.ndarray]:
    grey = picture.convert("L").resize(_LOOK, Image.Resampling.BOX)
    look = np.asarray(grey, np.float64)
    return float(np.log(picture.width / picture.height)), look - look.mean()


def _is_same(
    shape: float, look: np.ndarray, other_shape: float, other: np.ndarray, at_least: float = _SAME
) -> bool:
    return abs(shape - other_shape) < _SAME_SHAPE and _correlation(look, other) >= at_least


def _correlation(look: np.ndarray, other: np.ndarray) -> float:
    """1 for equal pictures, whatever their brightness and contrast; 0 for one without any contrast."""
    size = float(np.linalg.norm(look) * np.linalg.norm(other))
    return float((look * other).sum()) / size if size > 1e-6 else 0.0
