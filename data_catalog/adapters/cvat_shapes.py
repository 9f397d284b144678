"""CVAT's shapes as boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from data_catalog.ids import number

WITH_AREA = frozenset({"box", "polygon", "mask", "ellipse", "cuboid"})
WITHOUT_AREA = frozenset({"polyline", "points", "skeleton"})
SHAPES = WITH_AREA | WITHOUT_AREA
_CUBOID = ("tl1", "bl1", "tr1", "br1", "tl2", "bl2", "tr2", "br2")


def extent(tag: str, attributes: Mapping[str, str]) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of the smallest upright box around a shape, in pixels, 0-based, exclusive.

    Raises:
        ValueError: when a coordinate is missing or not a number.
    """
    if tag == "box":
        x1, y1, x2, y2 = (_of(attributes, name) for name in ("xtl", "ytl", "xbr", "ybr"))
        return _rotated(x1, y1, x2, y2, attributes)
    if tag == "mask":
        left, top, width, height = (_of(attributes, name) for name in ("left", "top", "width", "height"))
        return left, top, left + width, top + height
    if tag == "ellipse":
        x, y, rx, ry = (_of(attributes, name) for name in ("cx", "cy", "rx", "ry"))
        return _rotated(x - abs(rx), y - abs(ry), x + abs(rx), y + abs(ry), attributes)
    if tag == "cuboid":
        points = [(_of(attributes, f"x{corner}"), _of(attributes, f"y{corner}")) for corner in _CUBOID]
    else:
        points = _points(attributes)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def _of(attributes: Mapping[str, str], name: str) -> float:
    if name not in attributes:
        raise ValueError(f"it has no {name}")
    return number(attributes[name])


def _points(attributes: Mapping[str, str]) -> list[tuple[float, float]]:
    points = []
    for pair in attributes.get("points", "").split(";"):
        x, comma, y = pair.partition(",")
        if not comma:
            raise ValueError(f"its points are not 'x,y;x,y;...': {pair[:40]!r}")
        points.append((number(x), number(y)))
    return points


def _rotated(
    x1: float, y1: float, x2: float, y2: float, attributes: Mapping[str, str]
) -> tuple[float, float, float, float]:
    """The box around one that is turned about its centre by `rotation` degrees."""
    if "rotation" not in attributes:
        return x1, y1, x2, y2
    angle = math.radians(number(attributes["rotation"]))
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    half_x, half_y = (x2 - x1) / 2, (y2 - y1) / 2
    across, down = half_x * cos + half_y * sin, half_x * sin + half_y * cos
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - across, y - down, x + across, y + down
