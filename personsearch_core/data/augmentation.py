"""Training images of the detector: decoded, augmented, placed on the network's input."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from personsearch_core.boxes import Placement, box_areas, clip_boxes
from personsearch_core.data.network_input import Picture, input_placement, picture_of
from personsearch_core.data.scenes import Scene
from personsearch_core.models.targets import Targets
from personsearch_core.recipes import DetectorAugmentation, DetectorModel

VISIBLE_PART = 0.3
"""A person of whom a zoom leaves less than this fraction visible becomes an ignore region."""

SMALLEST_SIDE = 1.0
"""Boxes narrower or shorter than this, in input pixels, are dropped: no anchor fits them."""


@dataclass(frozen=True)
class Colours:
    """Changes of an image's colours, in this order: factors around 1, and a shift of the hue around 0."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    def of(self, image: Tensor) -> Tensor:
        """The image, uint8 (3, H, W), so changed; on its device."""
        if self.brightness != 1:
            image = F.adjust_brightness_image(image, self.brightness)
        if self.contrast != 1:
            image = F.adjust_contrast_image(image, self.contrast)
        if self.saturation != 1:
            image = F.adjust_saturation_image(image, self.saturation)
        if self.hue != 0:
            image = F.adjust_hue_image(image, self.hue)
        return image


def training_sample(
    scene: Scene,
    model: DetectorModel,
    augmentation: DetectorAugmentation,
    rng: np.random.Generator,
    out: Tensor | None = None,
    people: NDArray[np.int64] | None = None,
) -> tuple[Picture, Targets, Colours]:
    """Decode and place one scene: its picture, its visible boxes in input pixels, and its new colours.

    All random numbers come from `rng`, equally many whichever augmentations are on. `out`: where the picture
    goes, unless a GPU is to decode it. `people`: see `scene_targets`.
    """
    placement = _draw_placement(scene, model, augmentation, rng)
    targets = scene_targets(scene, placement, people)
    return picture_of(scene, placement, model, out), targets, _draw_colours(augmentation, rng)


def scene_targets(scene: Scene, placement: Placement, people: NDArray[np.int64] | None = None) -> Targets:
    """A scene's boxes in pixels of the network's input, clipped to the placed region.

    `people`, if given, are the labels of all of the scene's boxes.
    """
    x1, y1, x2, y2 = placement.source
    whole = clip_boxes(scene.boxes, scene.width, scene.height)
    offset = np.array([x1, y1, x1, y1], dtype=whole.dtype)
    visible = clip_boxes(whole - offset, x2 - x1, y2 - y1) + offset
    seen = box_areas(visible) / np.maximum(box_areas(whole), 1e-6)
    boxes = placement.map_boxes(visible)
    keep = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST_SIDE).all(axis=1)
    ignore = scene.ignore | (seen < VISIBLE_PART)
    labels = None if people is None else torch.from_numpy(people[keep])
    return Targets(torch.from_numpy(boxes[keep].astype(np.float32)), torch.from_numpy(ignore[keep]), labels)


def _draw_placement(
    scene: Scene, model: DetectorModel, augmentation: DetectorAugmentation, rng: np.random.Generator
) -> Placement:
    mirrored = bool(rng.random() < augmentation.horizontal_flip)
    zoom, at_x, at_y = rng.uniform(*augmentation.scale_jitter), rng.random(), rng.random()
    whole = input_placement(scene.width, scene.height, model, mirrored=mirrored)
    return zoomed(whole, zoom, at_x, at_y)


def zoomed(placement: Placement, zoom: float, at_x: float, at_y: float) -> Placement:
    """Zoom in (a part of the image on the same target) or out (the whole image on a smaller target).

    at_x and at_y in 0..1 position the part, or the smaller target, within the room it has.
    """
    source, target = placement.source, placement.target
    if zoom > 1:
        return dataclasses.replace(placement, source=_shrunk(source, 1 / zoom, source, at_x, at_y))
    if zoom < 1:
        room = (0, 0, placement.input_width, placement.input_height)
        return dataclasses.replace(placement, target=_shrunk(target, zoom, room, at_x, at_y))
    return placement


def _shrunk(
    box: tuple[int, int, int, int], factor: float, room: tuple[int, int, int, int], at_x: float, at_y: float
) -> tuple[int, int, int, int]:
    """A box of the proportions of another one, somewhere in a room."""
    width = max(1, round((box[2] - box[0]) * factor))
    height = max(1, round((box[3] - box[1]) * factor))
    x = room[0] + round((room[2] - room[0] - width) * at_x)
    y = room[1] + round((room[3] - room[1] - height) * at_y)
    return (x, y, x + width, y + height)


def _draw_colours(augmentation: DetectorAugmentation, rng: np.random.Generator) -> Colours:
    brightness, contrast, saturation, hue = rng.uniform(-1, 1, size=4).tolist()
    return Colours(
        max(0.0, 1 + brightness * augmentation.brightness),
        max(0.0, 1 + contrast * augmentation.contrast),
        max(0.0, 1 + saturation * augmentation.saturation),
        hue * augmentation.hue,
    )
