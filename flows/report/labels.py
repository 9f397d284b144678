"""Where the labels of boxes stand on a picture: never over one another, whatever size it is shown in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flows.report.content import DrawnBox, Label

SMALLEST = 280
"""Width in pixels of a picture on the narrowest screen. Labels keep their size, so that in a larger picture
they only move apart."""
LINE, LETTER, PADDING = 14, 7, 7
"""Size of a label's type on the page, in pixels, a little generous."""

_Rectangle = tuple[float, float, float, float]


def place_labels(boxes: Sequence[DrawnBox], width: int, height: int) -> list[Label]:
    """Labels of the boxes on a picture of `width` x `height` pixels, earlier boxes first.

    A label that does not fit beside its box is left out.
    """
    scale = SMALLEST / width
    taken: list[_Rectangle] = []
    labels = []
    for box in boxes:
        if not box.label:
            continue
        size = len(box.label) * LETTER + PADDING
        for label, rectangle in _places(box, size, scale, (SMALLEST, height * scale)):
            if not any(_overlap(rectangle, other) for other in taken):
                taken.append(rectangle)
                labels.append(label)
                break
    return labels


def _places(
    box: DrawnBox, size: float, scale: float, picture: tuple[float, float]
) -> Iterator[tuple[Label, _Rectangle]]:
    """Where a box's label may stand in the smallest picture, best first: above it, inside, below.

    Each is anchored at an edge of the box, so that it stays there in every size of the picture.
    """
    x1, y1, x2, y2 = (each * scale for each in box.box)
    width, height = picture
    down_the_box = (("bottom", y1, y1 - LINE), ("top", y1, y1), ("bottom", y2, y2 - LINE), ("top", y2, y2))
    across_the_box = (("left", x1, x1), ("right", x2, x2 - size))
    for vertical, y, top in down_the_box:
        for horizontal, x, left in across_the_box:
            rectangle = (left, top, left + size, top + LINE)
            if left < 0 or top < 0 or rectangle[2] > width or rectangle[3] > height:
                continue
            across = x / width if horizontal == "left" else 1 - x / width
            down = y / height if vertical == "top" else 1 - y / height
            style = f"{horizontal}:{100 * across:.2f}%;{vertical}:{100 * down:.2f}%"
            yield Label(box.style, box.label, style), rectangle


def _overlap(one: _Rectangle, other: _Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
