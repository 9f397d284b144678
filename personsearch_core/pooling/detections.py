"""Runs the detector over a test view, once: detections, and pooled features of all relevant boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from personsearch_core.boxes import Boxes, Placement, place_image
from personsearch_core.data.decoding import read_scene, render
from personsearch_core.data.network_input import place_scene, require_decoder
from personsearch_core.data.prefetch import decode_threads, prefetch
from personsearch_core.data.scenes import Scene
from personsearch_core.models.compute import batch_on, model_device, neighbours_count, prepare
from personsearch_core.models.detector import Detector, select_detections
from personsearch_core.pooling.rois import (
    clipped_rois,
    crop_people,
    in_original_pixels,
    pool_shared_map,
    roi_boxes,
)
from personsearch_core.pooling.stored import to_stored
from personsearch_core.recipes import DetectionsRecipe
from personsearch_core.training.optimisation import autocast


@dataclass(frozen=True, eq=False)
class SceneDetections:
    """The detections of one image, with features.

    boxes: (n, 4) float32, original pixels, clipped to the image, best first; scores: (n,) float32.
    extra_boxes: (m, 4) as given. features: (n, C, H, W) of the boxes, extra_features: (m, C, H, W) of the
    extra boxes.
    """

    image_id: str
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    extra_boxes: NDArray[np.float32]
    features: NDArray[np.generic]
    extra_features: NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class _Input:
    scene: Scene
    extra: Boxes
    image: Tensor
    placement: Placement
    full_resolution: Tensor | None
    """Kept only for disj, which cuts crops from it."""


def detect_scenes(
    detector: Detector,
    recipe: DetectionsRecipe,
    scenes: Sequence[Scene],
    extra_boxes: Sequence[Boxes] | None = None,
) -> Iterator[SceneDetections]:
    """Detect the people in every scene, in order, and pool their features.

    extra_boxes: per scene, further boxes (m, 4) in original pixels to pool (queries, ground truth). Batches
    are `batch_images` scenes in order; one pass through the backbone serves detection and pooling. Computes
    on the detector's device. What is found in a scene does not depend on others unless `neighbours_count`.
    """
    require_decoder(detector.model, model_device(detector))
    detector = prepare(detector.eval(), recipe.compute)
    extras = extra_boxes if extra_boxes is not None else [np.empty((0, 4), np.float32)] * len(scenes)

    def read(item: tuple[Scene, Boxes]) -> _Input:
        return _read(*item, detector, keep_full_resolution=recipe.roi.variant == "disj")

    inputs = prefetch(
        read, zip(scenes, extras, strict=True), threads=decode_threads(), ahead=2 * recipe.batch_images
    )
    for first in range(0, len(scenes), recipe.batch_images):
        yield from _detect_batch(
            detector, recipe, [next(inputs) for _ in scenes[first : first + recipe.batch_images]]
        )


def _read(scene: Scene, extra: Boxes, detector: Detector, *, keep_full_resolution: bool) -> _Input:
    model = detector.model
    image = read_scene(scene) if keep_full_resolution else None
    if image is None or model.decode != "full":
        return _Input(scene, extra, *place_scene(scene, model, device=model_device(detector)), image)
    placement = place_image(scene.width, scene.height, model.image_width, model.image_height, model.resize)
    return _Input(scene, extra, render(image, placement), placement, image)


@torch.inference_mode()
def _detect_batch(
    detector: Detector, recipe: DetectionsRecipe, batch: Sequence[_Input]
) -> Iterator[SceneDetections]:
    device = model_device(detector)
    full = neighbours_count(recipe.compute, device) is None
    images = batch_on(device, [item.image for item in batch], recipe.compute, recipe.batch_images, full=full)
    shared_variant = None if recipe.roi.variant == "disj" else recipe.roi.variant
    with autocast(recipe.compute, device):
        output, shared = detector.heads_and_shared(images, shared_variant)
    found = select_detections(
        output,
        [item.placement for item in batch],
        score_threshold=recipe.score_threshold,
        nms_threshold=recipe.nms_threshold,
        max_per_image=recipe.max_per_image,
    )
    boxes = [
        in_original_pixels(people.boxes, item.placement, item.scene.width, item.scene.height)
        for item, people in zip(batch, found, strict=True)
    ]
    features = _pool_boxes(recipe, batch, boxes, shared)
    for item, people, own, rows in zip(batch, found, boxes, features, strict=True):
        yield SceneDetections(
            image_id=item.scene.image_id,
            boxes=own,
            scores=people.scores.float().cpu().numpy(),
            extra_boxes=item.extra,
            features=rows[: len(own)],
            extra_features=rows[len(own) :],
        )


def _pool_boxes(
    recipe: DetectionsRecipe, batch: Sequence[_Input], boxes: Sequence[Boxes], shared: Tensor | None
) -> list[NDArray[np.generic]]:
    """Per image, features of its detections, then of its extra boxes."""
    rois = []
    for item, own in zip(batch, boxes, strict=True):
        everyone = np.concatenate([own, item.extra.astype(own.dtype)])
        rois.append(clipped_rois(everyone, item.scene.width, item.scene.height, recipe.roi))
    if shared is None:
        return [
            crop_people(item.full_resolution, own, recipe.roi).numpy()
            for item, own in zip(batch, rois, strict=True)
            if item.full_resolution is not None
        ]
    cells = [roi_boxes(own, item.placement, recipe.roi) for item, own in zip(batch, rois, strict=True)]
    pooled = to_stored(
        pool_shared_map(shared, cells, recipe.roi),
        recipe.dtype,
        f"detections, images {batch[0].scene.image_id} to {batch[-1].scene.image_id}",
    )
    return np.split(pooled, np.cumsum([len(own) for own in cells])[:-1])
