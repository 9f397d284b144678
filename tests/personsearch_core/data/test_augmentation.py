from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from personsearch_core.boxes import place_image
from personsearch_core.data.augmentation import scene_targets, training_sample, zoomed
from personsearch_core.data.scenes import Scene
from personsearch_core.recipes import DetectorAugmentation
from tests.personsearch_core.scene_files import TINY, write_scenes

EVERYTHING = DetectorAugmentation(
    scale_jitter=(0.5, 2.0), brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1
)
NOTHING = DetectorAugmentation(horizontal_flip=0.0)


def scene_with(boxes: list[list[float]]) -> Scene:
    n = len(boxes)
    return Scene(
        "s",
        "",
        100,
        50,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.zeros(n, bool),
        ("b",) * n,
        (None,) * n,
    )


def test_the_same_generator_gives_the_same_sample(tmp_path: Path) -> None:
    (scene,) = write_scenes(tmp_path, 1)
    first, first_targets, colours = training_sample(scene, TINY, EVERYTHING, np.random.default_rng(3))
    again, again_targets, same = training_sample(scene, TINY, EVERYTHING, np.random.default_rng(3))
    other, _, others = training_sample(scene, TINY, EVERYTHING, np.random.default_rng(4))
    assert colours == same != others
    assert not torch.equal(colours.of(first), first) and torch.equal(colours.of(first), same.of(again))
    assert torch.equal(first, again) and torch.equal(first_targets.boxes, again_targets.boxes)
    assert not torch.equal(first, other)


def test_boxes_follow_the_pixels(tmp_path: Path) -> None:
    (scene,) = write_scenes(tmp_path, 1, people=1)
    for seed in range(8):
        image, targets, _ = training_sample(
            scene, TINY, DetectorAugmentation(scale_jitter=(0.6, 1.3)), np.random.default_rng(seed)
        )
        for x1, y1, x2, y2 in targets.boxes.round().int().tolist():
            inside = image[0, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].float()
            assert inside.mean() > 235, seed


def test_boxes_are_clipped_to_the_image_and_empty_ones_dropped() -> None:
    scene = scene_with([[-10, 10, 30, 60], [120, 0, 140, 20], [40, 10, 40.2, 30]])
    targets = scene_targets(scene, place_image(100, 50, 100, 50))
    assert targets.boxes.tolist() == [[0, 10, 30, 50]]
    assert targets.ignore.tolist() == [False]


def test_what_a_zoom_hides_becomes_an_ignore_region() -> None:
    scene = scene_with([[0, 0, 60, 50], [45, 0, 65, 50]])
    left_half = zoomed(place_image(100, 50, 100, 50), 2.0, 0.0, 0.0)
    targets = scene_targets(scene, left_half)
    assert left_half.source == (0, 0, 50, 25)
    assert targets.ignore.tolist() == [False, True]


@given(st.floats(0.3, 3.0), st.floats(0, 1), st.floats(0, 1))
def test_zooms_stay_inside_image_and_input(zoom: float, at_x: float, at_y: float) -> None:
    placement = zoomed(place_image(100, 50, 64, 64), zoom, at_x, at_y)
    for x1, y1, x2, y2 in (placement.source, placement.target):
        assert 0 <= x1 < x2 and 0 <= y1 < y2
    assert placement.source[2] <= 100 and placement.source[3] <= 50
    assert placement.target[2] <= 64 and placement.target[3] <= 64


def test_images_without_people_train_too(tmp_path: Path) -> None:
    (scene,) = write_scenes(tmp_path, 1, people=0)
    _, targets, _ = training_sample(scene, TINY, NOTHING, np.random.default_rng(0))
    assert targets.boxes.shape == (0, 4) and targets.ignore.shape == (0,)
