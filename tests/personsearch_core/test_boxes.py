from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from personsearch_core.boxes import clip_boxes, mirror_boxes, place_image, widen_boxes

sizes = st.integers(1, 4000)
corners = arrays(np.float64, (3, 4), elements=st.floats(-500, 5000))


def test_no_boxes_are_no_trouble() -> None:
    none = np.empty((0, 4), np.float32)
    assert clip_boxes(none, 10, 10).shape == (0, 4)
    assert place_image(640, 480, 320, 240).map_boxes(none).shape == (0, 4)


def test_letterbox_keeps_proportions_in_the_top_left_corner() -> None:
    placement = place_image(1920, 1080, 640, 640)
    assert placement.target == (0, 0, 640, 360)
    np.testing.assert_allclose(placement.map_boxes(np.array([[0, 0, 1920.0, 1080]])), [[0, 0, 640, 360]])


def test_stretch_fills_the_input() -> None:
    assert place_image(1920, 1080, 640, 640, "stretch").target == (0, 0, 640, 640)


@given(sizes, sizes, sizes, sizes, st.sampled_from(["letterbox", "stretch"]), st.booleans(), corners)
def test_unmapping_undoes_mapping(
    width: int,
    height: int,
    input_width: int,
    input_height: int,
    resize: str,
    mirrored: bool,
    boxes: np.ndarray,
) -> None:
    placement = place_image(width, height, input_width, input_height, resize, mirrored=mirrored)  # type: ignore[arg-type]
    back = placement.unmap_boxes(placement.map_boxes(boxes))
    np.testing.assert_allclose(back, boxes, atol=1e-6 * max(width, height, 5000))


@given(sizes, sizes, corners)
def test_a_mirrored_placement_maps_the_mirrored_boxes(width: int, height: int, boxes: np.ndarray) -> None:
    plain, mirrored = place_image(width, height, 96, 64), place_image(width, height, 96, 64, mirrored=True)
    np.testing.assert_allclose(
        mirrored.map_boxes(boxes), plain.map_boxes(mirror_boxes(boxes, width)), rtol=1e-9, atol=1e-6
    )


@given(sizes, sizes, corners)
def test_clipped_boxes_lie_inside(width: int, height: int, boxes: np.ndarray) -> None:
    clipped = clip_boxes(boxes, width, height)
    assert (clipped >= 0).all() and (clipped[:, ::2] <= width).all() and (clipped[:, 1::2] <= height).all()


def test_margin_is_a_part_of_the_boxs_own_size() -> None:
    box = np.array([[10, 20, 30, 60]], np.float32)
    np.testing.assert_allclose(widen_boxes(box, 0.1), [[8, 16, 32, 64]])
    assert widen_boxes(box, 0.0) == pytest.approx(box)
