from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import roi_align

from personsearch_core.boxes import place_image
from personsearch_core.errors import PersonSearchError
from personsearch_core.pooling import bilinear
from personsearch_core.pooling.rois import clipped_rois, crop_people, pool_shared_map, roi_boxes
from personsearch_core.pooling.stored import stored_rows
from personsearch_core.recipes import RoiRecipe
from tests.personsearch_core.scene_files import TINY


def test_default_sizes_are_those_of_a_crop_at_the_stride() -> None:
    assert [RoiRecipe(variant=v).roi_size for v in ("j2", "j3", "j4")] == [(64, 32), (32, 16), (16, 8)]
    assert RoiRecipe(variant="disj").row_shape(TINY.backbone) == (3, 256, 128)
    assert RoiRecipe(variant="j3").row_shape(TINY.backbone) == (128, 32, 16)


def test_letterbox_and_stride_by_hand() -> None:
    placement = place_image(1920, 1080, 640, 640)
    rois = clipped_rois(np.array([[-90, 300, 600, 1200]], np.float32), 1920, 1080, RoiRecipe(variant="j3"))
    np.testing.assert_allclose(rois, [[0, 300, 600, 1080]])
    np.testing.assert_allclose(roi_boxes(rois, placement, RoiRecipe(variant="j3")), [[0, 12.5, 25, 45]])


@given(st.integers(8, 60), st.integers(8, 40), st.floats(0, 0.9), st.floats(0, 0.9))
def test_pooling_a_ramp_gives_the_coordinates_back(height: int, width: int, x: float, y: float) -> None:
    """On a map whose value is the cell's own x (or y), each bin's mean is the place of its centre."""
    ramp = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).float()[None]
    roi = RoiRecipe(variant="j3", roi_height=4, roi_width=2, sampling_ratio=2)
    x1, y1 = 1 + x * (width - 6), 1 + y * (height - 6)
    box = np.array([[x1, y1, x1 + 3, y1 + 4]], np.float32)
    pooled = pool_shared_map(ramp, [box], roi)[0]
    np.testing.assert_allclose(pooled[0, :, 0], y1 + np.arange(4) + 0.5 - 0.5, atol=1e-4)
    np.testing.assert_allclose(pooled[1, 0], x1 + (np.arange(2) + 0.5) * 1.5 - 0.5, atol=1e-4)


def test_crops_show_the_person_at_full_resolution() -> None:
    image = torch.zeros(3, 300, 400, dtype=torch.uint8)
    image[0, 40:140, 100:150] = 255
    crop = crop_people(image, np.array([[100, 40, 150, 140]], np.float32), RoiRecipe(variant="disj"))[0]
    assert crop.shape == (3, 256, 128) and (crop[0] == 255).all() and not crop[1:].any()


def test_a_mirrored_crop_is_that_of_the_mirrored_person() -> None:
    image = _maps(3, 60, 40).mul(255).to(torch.uint8)
    rois, roi = np.array([[4, 8, 24, 48]], np.float32), RoiRecipe(variant="disj")
    expected = crop_people(image.flip(-1), np.array([[16, 8, 36, 48]], np.float32), roi)
    assert torch.equal(crop_people(image, rois, roi, mirrored=True), expected)


def test_a_crop_outside_the_image_is_a_pixel_of_its_border() -> None:
    image = torch.full((3, 30, 40), 9, dtype=torch.uint8)
    rois = clipped_rois(np.array([[50, 60, 70, 90]], np.float32), 40, 30, RoiRecipe(variant="disj"))
    assert (crop_people(image, rois, RoiRecipe(variant="disj")) == 9).all()


def test_values_beyond_float16_are_counted_and_refused() -> None:
    with pytest.raises(PersonSearchError, match=r"shard 3: 2 pooled values do not fit float16"):
        stored_rows(torch.tensor([1.0, 7e4, -8e4]), "float16", "shard 3")
    assert stored_rows(torch.tensor([7e4]), "float32", "").here("").dtype == np.float32
    with pytest.raises(PersonSearchError, match=r"shard 3: 1 pooled values are not finite"):
        stored_rows(torch.tensor([1.0, np.nan]), "float32", "shard 3")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 12_345, -1])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_one_value_that_is_not_finite_is_found_wherever_it_is(bad: float, at: int, dtype: str) -> None:
    pooled = torch.linspace(-60000, 60000, 2 * 8 * 64 * 33).reshape(2, 8, 64, 33)
    assert np.isfinite(stored_rows(pooled, dtype, "shard 3").here("")).all()
    assert stored_rows(pooled[:0], dtype, "shard 3").here("").shape == (0, 8, 64, 33)
    pooled.view(-1)[at] = bad
    with pytest.raises(PersonSearchError, match=r"shard 3: 1 pooled values are not finite"):
        stored_rows(pooled, dtype, "shard 3")


def _maps(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 2, 3]),
    st.lists(st.tuples(*[st.floats(-6, 15, width=32)] * 4), max_size=4),
    st.booleans(),
)
def test_pooling_equals_torchvisions_roi_align(
    height: int, width: int, samples: int, corners: list[tuple[float, ...]], channels_last: bool
) -> None:
    """Inside the map, across its border, wholly outside; on maps of one cell; empty ROIs."""
    maps = _maps(2, 5, height, width)
    if channels_last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    own = np.sort(np.array(corners, np.float32).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    rois = [own[:1], own[1:]]
    roi = RoiRecipe(variant="j4", roi_height=4, roi_width=3, sampling_ratio=samples)
    expected = roi_align(
        maps, [torch.from_numpy(part) for part in rois], roi.roi_size, 1.0, samples, aligned=True
    )
    torch.testing.assert_close(pool_shared_map(maps, rois, roi), expected, rtol=1e-5, atol=1e-5)


def test_points_at_the_maps_outer_limit_fall_on_torchvisions_side() -> None:
    """Rounding decides between a border cell and zero there."""
    maps = 1 + _maps(1, 2, 3, 3)
    edges = np.unique(np.concatenate([np.arange(-30, 60) / n for n in (3, 7, 10)])).astype(np.float32)
    edges = edges[(edges > -3) & (edges < 6)]
    low, high = np.meshgrid(edges, edges)
    rois = np.stack([low, np.zeros_like(low), high, np.full_like(low, 3)], axis=-1).reshape(-1, 4)
    rois = rois[rois[:, 0] < rois[:, 2]]
    for samples in (1, 2):
        roi = RoiRecipe(variant="j4", roi_height=2, roi_width=3, sampling_ratio=samples)
        expected = roi_align(maps, [torch.from_numpy(rois)], roi.roi_size, 1.0, samples, aligned=True)
        torch.testing.assert_close(pool_shared_map(maps, [rois], roi), expected, rtol=1e-5, atol=1e-5)


def test_many_rois_are_pooled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, roi = _maps(2, 4, 20, 30), RoiRecipe(variant="j4")
    rois = [np.array([[n, n, n + 5, n + 9] for n in range(count)], np.float32) for count in (4, 3)]
    whole = pool_shared_map(maps, rois, roi)
    monkeypatch.setattr(bilinear, "ROIS_AT_ONCE", 2)
    assert torch.equal(pool_shared_map(maps, rois, roi), whole)


def test_an_adaptive_number_of_samples_is_torchvisions() -> None:
    maps, box = _maps(1, 3, 20, 30), np.array([[2.5, 1, 25, 18]], np.float32)
    roi = RoiRecipe(variant="j4", sampling_ratio=0)
    expected = roi_align(maps, [torch.from_numpy(box)], roi.roi_size, 1.0, 0, aligned=True)
    assert torch.equal(pool_shared_map(maps, [box], roi), expected)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_bits_of_a_row_depend_on_nothing_but_its_map_and_roi(threads: int) -> None:
    rng = np.random.default_rng(0)
    maps = _maps(3, 4, 20, 30)
    rois = [
        np.sort(rng.uniform(0, 20, (n, 2, 2)), axis=1).reshape(n, 4).astype(np.float32) for n in (3, 0, 4)
    ]
    roi = RoiRecipe(variant="j4")
    alone = [pool_shared_map(maps[i : i + 1], [box[None]], roi) for i, own in enumerate(rois) for box in own]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = pool_shared_map(maps.contiguous(memory_format=torch.channels_last), rois, roi)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together, torch.cat(alone))


def test_pooling_has_a_gradient() -> None:
    maps = _maps(1, 2, 8, 8).requires_grad_()
    pool_shared_map(maps, [np.array([[1, 1, 5, 6]], np.float32)], RoiRecipe(variant="j4")).sum().backward()
    assert maps.grad is not None
    np.testing.assert_allclose(maps.grad.sum(), 2 * 16 * 8, rtol=1e-5)


def _cells_of_bin(first: int, last: int, number: int, bins: int, cells: int) -> tuple[int, int]:
    size = max(last - first + 1, 1) / bins
    start, stop = first + math.floor(number * size), first + math.ceil((number + 1) * size)
    return min(max(start, 0), cells), min(max(stop, 0), cells)


def _roi_pool_by_hand(maps: torch.Tensor, image: int, box: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Girshick 2015: a ROI rounded to whole cells, both ends counted, and the maximum of each bin's cells."""
    x1, y1, x2, y2 = (math.floor(abs(value) + 0.5) * int(np.sign(value)) for value in box)
    height, width = maps.shape[2:]
    pooled = torch.zeros(maps.shape[1], *size)
    for i, j in np.ndindex(*size):
        top, bottom = _cells_of_bin(y1, y2, i, size[0], height)
        left, right = _cells_of_bin(x1, x2, j, size[1], width)
        if top < bottom and left < right:
            pooled[:, i, j] = maps[image, :, top:bottom, left:right].amax(dim=(1, 2))
    return pooled


@given(st.lists(st.tuples(*[st.integers(-24, 60).map(lambda n: n / 4)] * 4), max_size=5))
def test_roi_pool_takes_the_maximum_over_whole_cells(corners: list[tuple[float, ...]]) -> None:
    maps = _maps(2, 3, 9, 12)
    own = np.sort(np.array(corners, np.float32).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    roi = RoiRecipe(variant="j4", roi_height=4, roi_width=2, operator="roi_pool")
    found = pool_shared_map(maps, [own[:2], own[2:]], roi)
    expected = [_roi_pool_by_hand(maps, int(n >= 2), box, roi.roi_size) for n, box in enumerate(own)]
    assert found.shape == (len(own), 3, 4, 2)
    for row, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(row, wanted, rtol=0, atol=0)


def test_an_operator_changes_keys_and_its_default_does_not() -> None:
    assert "operator" not in RoiRecipe(operator="roi_align").model_dump()
    assert RoiRecipe(operator="roi_pool").model_dump()["operator"] == "roi_pool"


@pytest.mark.parametrize("fields", [{"variant": "disj"}, {"sampling_ratio": 4}])
def test_what_roi_pool_has_no_use_for_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="leave it out"):
        RoiRecipe.model_validate({"operator": "roi_pool", **fields})
