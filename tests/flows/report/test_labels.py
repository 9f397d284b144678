"""Labels on pictures: readable, inside, and never over one another, in every size."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from flows.report.content import DrawnBox
from flows.report.labels import LETTER, LINE, PADDING, SMALLEST, place_labels

WIDTH, HEIGHT = 640, 480

_boxes = st.lists(
    st.tuples(st.integers(-20, 620), st.integers(-20, 460), st.integers(2, 300), st.integers(2, 300)),
    max_size=12,
)


@given(_boxes, st.sampled_from([SMALLEST, 350, 440, 880]))
def test_labels_stay_inside_and_apart_in_every_size(
    boxes: list[tuple[int, int, int, int]], shown: int
) -> None:
    drawn = [
        DrawnBox("found", (x, y, x + w, y + h), f"0.{number:02}") for number, (x, y, w, h) in enumerate(boxes)
    ]
    labels = place_labels(drawn, WIDTH, HEIGHT)
    height = HEIGHT * shown / WIDTH
    rectangles = [
        _rectangle(label.place, len(label.text) * LETTER + PADDING, shown, height) for label in labels
    ]
    for at, (left, top, right, low) in enumerate(rectangles):
        assert left > -0.1 and top > -0.1 and right < shown + 0.1 and low < height + 0.1
        for other in rectangles[:at]:
            apart = right <= other[0] + 0.1 or other[2] <= left + 0.1
            assert apart or low <= other[1] + 0.1 or other[3] <= top + 0.1


def test_the_first_of_two_equal_boxes_keeps_its_place_above() -> None:
    box = (100.0, 200.0, 200.0, 400.0)
    first, second = place_labels([DrawnBox("found", box, "0.90"), DrawnBox("false", box, "0.40")], 640, 480)
    assert (first.text, first.place) == ("0.90", "left:15.62%;bottom:58.33%")
    assert second.text == "0.40" and second.place != first.place


def _rectangle(place: str, width: float, shown: float, height: float) -> tuple[float, float, float, float]:
    """Where a browser puts a label of this width: left, top, right, low in pixels."""
    (across, x), (down, y) = re.findall(r"(\w+):([-\d.]+)%", place)
    at_x, at_y = float(x) / 100 * shown, float(y) / 100 * height
    left = at_x if across == "left" else shown - at_x - width
    top = at_y if down == "top" else height - at_y - LINE
    return left, top, left + width, top + LINE
