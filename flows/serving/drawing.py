"""Crops and scenes of an index as JPEG, the last used ones kept in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from flows.search.pictures import scene_of
from personsearch_core.drawing import cropped, fitted
from personsearch_core.search.people import FoundPeople

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.search.index import Index

SCENE_SIZE = (1600, 1200)
CROP_SIZE = (192, 384)
_QUALITY = 82


@dataclass(frozen=True)
class Drawn:
    """A JPEG, and the size of the picture before it was shrunk, which boxes refer to."""

    jpeg: bytes
    width: int
    height: int

    @property
    def bytes(self) -> int:
        return len(self.jpeg)


def as_jpeg(picture: Image.Image, most: tuple[int, int] = SCENE_SIZE) -> Drawn:
    """A picture as JPEG, shrunk to at most (width, height); nothing of the file it came from is in it."""
    buffer = io.BytesIO()
    fitted(picture, most).save(buffer, "JPEG", quality=_QUALITY)
    return Drawn(buffer.getvalue(), picture.width, picture.height)


def draw_scene(index: Index, row: int) -> Drawn:
    """The scene in which a person was seen. Raises ConfigError or PersonSearchError if it cannot be read."""
    return as_jpeg(scene_of(index, row))


def draw_crop(index: Index, row: int) -> Drawn:
    """A person's crop. Raises what `draw_scene` raises."""
    return as_jpeg(cropped(scene_of(index, row), index.box(row)), CROP_SIZE)


def crop_of_picture(people: FoundPeople, box: Sequence[float]) -> Drawn:
    """A part of a client's picture."""
    return as_jpeg(cropped(people.picture(), box), CROP_SIZE)
