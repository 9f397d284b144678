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
    """Clip boxes to an image; boxes outside it come out empty.

    Parameters
    ----------
    boxes
        (n, 4) x1, y1, x2, y2 in pixels.
    width, height
        Size of the image in pixels.

    Returns
    -------
    Boxes
        (n, 4), of the dtype of `boxes`.

    Examples
    --------
    >>> clip_boxes(np.array([[-5.0, 10.0, 30.0, 90.0]]), width=20, height=80).tolist()
    [[0.0, 10.0, 20.0, 80.0]]
    """
    limits = np.array([width, height, width, height], dtype=boxes.dtype)
    return np.clip(boxes, 0, limits)


def box_areas(boxes: Boxes) -> NDArray[Any]:
    """Areas of boxes.

    Parameters
    ----------
    boxes
        (n, 4) x1, y1, x2, y2 in pixels.

    Returns
    -------
    NDArray
        (n,) square pixels; an inverted box counts as empty.

    Examples
    --------
    >>> box_areas(np.array([[0, 0, 4, 10], [5, 5, 3, 9]])).tolist()
    [40, 0]
    """
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    areas: NDArray[Any] = sides[:, 0] * sides[:, 1]
    return areas


def widen_boxes(boxes: Boxes, margin: float) -> Boxes:
    """Add a margin on every side of each box.

    Parameters
    ----------
    boxes
        (n, 4) x1, y1, x2, y2 in pixels.
    margin
        Fraction of a box's own width and height that is added on each side.

    Returns
    -------
    Boxes
        (n, 4), not clipped.

    Examples
    --------
    >>> widen_boxes(np.array([[10.0, 0.0, 20.0, 40.0]]), margin=0.1).tolist()
    [[9.0, -4.0, 21.0, 44.0]]
    """
    grow = (boxes[:, 2:] - boxes[:, :2]) * np.asarray(margin, dtype=boxes.dtype)
    return np.concatenate([boxes[:, :2] - grow, boxes[:, 2:] + grow], axis=1)


def mirror_boxes(boxes: Boxes, width: float) -> Boxes:
    """Boxes after their image was mirrored left to right.

    Parameters
    ----------
    boxes
        (n, 4) x1, y1, x2, y2 in pixels.
    width
        Width of the image in pixels.

    Returns
    -------
    Boxes
        (n, 4).

    Examples
    --------
    >>> mirror_boxes(np.array([[0, 0, 40, 100]]), width=100).tolist()
    [[60, 0, 100, 100]]
    """
    mirrored = boxes.copy()
    mirrored[:, 0] = width - boxes[:, 2]
    mirrored[:, 2] = width - boxes[:, 0]
    return mirrored


@dataclass(frozen=True)
class Placement:
    """A region of an image, resized onto a rectangle of the network's input.

    The rest of the input is padding.

    Parameters
    ----------
    source
        The region: x1, y1, x2, y2 in whole pixels of the original image.
    target
        The rectangle: x1, y1, x2, y2 in whole pixels of the network's input.
    input_width, input_height
        Size of the network's input in pixels.
    mirrored
        Whether the region is flipped left to right.

    Examples
    --------
    >>> placement = place_image(1920, 1080, 640, 640)
    >>> placement.target
    (0, 0, 640, 360)
    >>> placement.map_boxes(np.array([[300.0, 600.0, 360.0, 750.0]])).tolist()
    [[100.0, 200.0, 120.0, 250.0]]
    """

    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]
    input_width: int
    input_height: int
    mirrored: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """Input pixels per original pixel, (x, y)."""
        sx1, sy1, sx2, sy2 = self.source
        tx1, ty1, tx2, ty2 = self.target
        return (tx2 - tx1) / (sx2 - sx1), (ty2 - ty1) / (sy2 - sy1)

    def map_boxes(self, boxes: Boxes) -> Boxes:
        """Boxes (n, 4) in original pixels -> pixels of the network's input, not clipped."""
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
    """Place a whole image on the network's input, in its top left corner.

    Parameters
    ----------
    width, height
        Size of the image in pixels.
    input_width, input_height
        Size of the network's input in pixels.
    resize
        `letterbox` keeps proportions to the nearest whole pixel and pads on the right or below; `stretch`
        fills the input.
    mirrored
        Whether to flip the image left to right.

    Returns
    -------
    Placement

    Examples
    --------
    >>> place_image(200, 100, 64, 64).scale
    (0.32, 0.32)
    """
    target = (input_width, input_height)
    if resize == "letterbox":
        scale = min(input_width / width, input_height / height)
        target = (
            min(input_width, max(1, round(width * scale))),
            min(input_height, max(1, round(height * scale))),
        )
    return Placement((0, 0, width, height), (0, 0, *target), input_width, input_height, mirrored)
