"""Runs the detector over a test view, once: detections, and pooled features of all relevant boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from personsearch_core.boxes import Boxes
from personsearch_core.data.decoding import read_scene
from personsearch_core.data.network_input import (
    PlacedImage,
    decoded,
    place_pixels,
    place_scene,
    require_decoder,
)
from personsearch_core.data.prefetch import NetworkInputs, brought, decode_threads, in_batches, prefetch
from personsearch_core.data.scenes import Scene
from personsearch_core.models.candidates import suppress
from personsearch_core.models.compute import autocast, batch_on, model_device, neighbours_count, prepare
from personsearch_core.models.detector import Detector
from personsearch_core.pooling.rois import in_original_pixels, pool_people
from personsearch_core.pooling.stored import PooledRows, stored_rows
from personsearch_core.recipes import DetectionsRecipe


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
    placed: PlacedImage


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
    detector = prepare(detector.eval(), recipe.compute, cuda_graphs=("candidates_graph",))
    device, size = model_device(detector), recipe.batch_images
    full = neighbours_count(recipe.compute, device) is None
    extras = extra_boxes if extra_boxes is not None else [np.empty((0, 4), np.float32)] * len(scenes)

    def read(item: tuple[Scene, Boxes]) -> _Input:
        return _Input(*item, _placed(item[0], detector, keep_image=recipe.roi.variant == "disj"))

    def bring(batch: Sequence[_Input]) -> NetworkInputs[Sequence[_Input]]:
        images = decoded([each.placed.pixels for each in batch], device)
        return NetworkInputs(batch_on(device, images, recipe.compute, size, full=full), batch)

    read_ahead = prefetch(read, zip(scenes, extras, strict=True), threads=decode_threads(), ahead=2 * size)
    with closing(brought(in_batches(read_ahead, size), bring, device)) as batches:
        for inputs in batches:
            yield from _detect_batch(detector, recipe, inputs.images, inputs.batch)


def _placed(scene: Scene, detector: Detector, *, keep_image: bool) -> PlacedImage:
    image = read_scene(scene) if keep_image else None
    if image is not None and detector.model.decode == "full":
        return place_pixels(image, detector.model, keep=True)
    return place_scene(scene, detector.model)._replace(image=image)


@torch.inference_mode()
def _detect_batch(
    detector: Detector, recipe: DetectionsRecipe, images: Tensor, batch: Sequence[_Input]
) -> Iterator[SceneDetections]:
    placed = [item.placed for item in batch]
    shared_variant = None if recipe.roi.variant == "disj" else recipe.roi.variant
    with autocast(recipe.compute, images.device):
        candidates, shared = detector.candidates(images, [each.placement for each in placed], shared_variant)
    found = suppress(
        candidates,
        len(batch),
        score_threshold=recipe.score_threshold,
        nms_threshold=recipe.nms_threshold,
        max_per_image=recipe.max_per_image,
    )
    boxes = [
        in_original_pixels(people.boxes, each.placement) for each, people in zip(placed, found, strict=True)
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
    everyone = [
        np.concatenate([own, item.extra.astype(own.dtype)]) for item, own in zip(batch, boxes, strict=True)
    ]
    pooled = pool_people([item.placed for item in batch], everyone, shared, recipe.roi)
    where = f"detections, images {batch[0].scene.image_id} to {batch[-1].scene.image_id}"
    rows = PooledRows(pooled) if shared is None else stored_rows(pooled, recipe.dtype, where)
    return np.split(rows.here(where), np.cumsum([len(own) for own in everyone])[:-1])
