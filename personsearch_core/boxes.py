"""Boxes as NumPy arrays: clipping, areas, and the placement of an image on the network's input.

A box is `(x1, y1, x2, y2)` in pixels, 0-based, x2 and y2 exclusive; an array of boxes has shape (n, 4). Boxes
of a scene are in pixels of the original image and may leave it: they are clipped only when used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[Any]


def clip_boxes(boxes: Boxes, width: float, height: float) -> Boxes:
    """Boxes (n, 4) cut off at the borders of an image; those outside it come out empty."""
    limits = np.array([width, height, width, height], dtype=boxes.dtype)
    return np.clip(boxes, 0, limits)


def box_areas(boxes: Boxes) -> NDArray[Any]:
    """Areas (n,) in square pixels; an inverted box counts as empty."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    areas: NDArray[Any] = sides[:, 0] * sides[:, 1]
    return areas


def widen_boxes(boxes: Boxes, margin: float) -> Boxes:
    """Boxes with `margin` of their own width and height added on each side."""
    grow = (boxes[:, 2:] - boxes[:, :2]) * np.asarray(margin, dtype=boxes.dtype)
    return np.concatenate([boxes[:, :2] - grow, boxes[:, 2:] + grow], axis=1)


def mirror_boxes(boxes: Boxes, width: float) -> Boxes:
    """Boxes of an image of this width, after the image was mirrored left to right."""
    mirrored = boxes.copy()
    mirrored[:, 0] = width - boxes[:, 2]
    mirrored[:, 2] = width - boxes[:, 0]
    return mirrored


@dataclass(frozen=True)
class Placement:
    """A region of an image (original pixels) resized onto a rectangle of the network's input.

    Both are (x1, y1, x2, y2) in whole pixels. What the rectangle does not cover is padding. `mirrored` flips
    the region left to right on its way.
    """

    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]
    input_width: int
    input_height: int
    mirrored: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """Input pixels an original pixel, (x, y)."""
        sx1, sy1, sx2, sy2 = self.source
        tx1, ty1, tx2, ty2 = self.target
        return (tx2 - tx1) / (sx2 - sx1), (ty2 - ty1) / (sy2 - sy1)

    def map_boxes(self, boxes: Boxes) -> Boxes:
        """Boxes (n, 4) in original pixels -> pixels of the network's input; nothing is clipped."""
        scale, source, target = self._as_arrays()
        return ((self._flip(boxes) - source) * scale + target).astype(boxes.dtype)

    def unmap_boxes(self, boxes: Boxes) -> Boxes:
        """The inverse: boxes (n, 4) in pixels of the network's input -> original pixels."""
        scale, source, target = self._as_arrays()
        return self._flip((boxes - target) / scale + source).astype(boxes.dtype)

    def _flip(self, boxes: Boxes) -> Boxes:
        return mirror_boxes(boxes, self.source[0] + self.source[2]) if self.mirrored else boxes

    def _as_arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        return (
            np.array(self.scale * 2),
            np.array(self.source[:2] * 2, dtype=np.float64),
            np.array(self.target[:2] * 2, dtype=np.float64),
        )


def place_image(
    width: int,
    height: int,
    input_width: int,
    input_height: int,
    resize: Literal["letterbox", "stretch"] = "letterbox",
    *,
    mirrored: bool = False,
) -> Placement:
    """The whole image on the network's input, in its top left corner.

    `letterbox` keeps proportions (to the nearest whole pixel) and pads right or below; `stretch` fills the
    input.
    """
    target = (input_width, input_height)
    if resize == "letterbox":
        scale = min(input_width / width, input_height / height)
        target = (
            min(input_width, max(1, round(width * scale))),
            min(input_height, max(1, round(height * scale))),
        )
    return Placement((0, 0, width, height), (0, 0, *target), input_width, input_height, mirrored)
