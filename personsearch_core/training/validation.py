"""AP of a detector on held-out scenes, during and after training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray

from personsearch_core.boxes import Boxes
from personsearch_core.data.network_input import PlacedImage, decoded, place_scene
from personsearch_core.data.prefetch import NetworkInputs, brought, decode_threads, in_batches, prefetch
from personsearch_core.data.scenes import Scene
from personsearch_core.evaluation.detection import evaluate_detection
from personsearch_core.evaluation.records import Detections, GroundTruth
from personsearch_core.identities import UNLABELLED
from personsearch_core.models.compute import autocast, batch_on, model_device
from personsearch_core.models.detector import Detector
from personsearch_core.pooling.rois import in_original_pixels
from personsearch_core.recipes import Compute
from personsearch_core.training.group import Alone

SCORE_THRESHOLD = 0.05
BATCH_IMAGES = 8

Found = tuple[Boxes, NDArray[np.float32]]
"""Boxes in original pixels and their scores, of one image."""


def validate_detector(
    detector: Detector, scenes: Sequence[Scene], compute: Compute, group: Alone | None = None
) -> dict[str, float]:
    """AP by COCO's rule (`coco_ap50`, `coco_ap`) and by person search's (`ap`, `recall` at a score of 0.5).

    Keys begin with `validation/`; if the scenes come from several sources, each also has its own,
    `validation/<source>/`. The processes of a group share the scenes. The detector's mode is restored.
    """
    group = group or Alone()
    was_training = detector.training
    detector.eval()
    own = range(len(scenes))[group.part]
    share = detect_boxes(detector, [scenes[i] for i in own], compute)
    found = dict(group.gather(list(zip(own, share, strict=True))))
    detector.train(was_training)
    metrics = _scores([found[i] for i in range(len(scenes))], scenes, "validation/")
    sources = sorted({scene.source for scene in scenes})
    for source in sources if len(sources) > 1 else ():
        rows = [i for i, scene in enumerate(scenes) if scene.source == source]
        metrics |= _scores([found[i] for i in rows], [scenes[i] for i in rows], f"validation/{source}/")
    return metrics


def detect_boxes(detector: Detector, scenes: Sequence[Scene], compute: Compute) -> Iterator[Found]:
    """Detections of each scene, in order; images are decoded ahead. The detector is in evaluation mode."""
    device = model_device(detector)

    def read(scene: Scene) -> PlacedImage:
        return place_scene(scene, detector.model)

    def bring(placed: Sequence[PlacedImage]) -> NetworkInputs[Sequence[PlacedImage]]:
        images = decoded([each.pixels for each in placed], device)
        return NetworkInputs(batch_on(device, images, compute, BATCH_IMAGES), placed)

    images = prefetch(read, scenes, threads=decode_threads(), ahead=2 * BATCH_IMAGES)
    with closing(brought(in_batches(images, BATCH_IMAGES), bring, device)) as batches:
        for inputs in batches:
            placements = [each.placement for each in inputs.batch]
            with torch.inference_mode(), autocast(compute, device):
                found = detector.detect(inputs.images, placements, score_threshold=SCORE_THRESHOLD)
            for placement, people in zip(placements, found, strict=True):
                yield in_original_pixels(people.boxes, placement), people.scores.float().cpu().numpy()


def _scores(found: Sequence[Found], scenes: Sequence[Scene], prefix: str) -> dict[str, float]:
    detections = Detections(
        image=_owners([len(boxes) for boxes, _ in found]),
        boxes=np.concatenate([boxes for boxes, _ in found]),
        scores=np.concatenate([scores for _, scores in found]),
        embeddings=np.empty((sum(len(boxes) for boxes, _ in found), 0), np.float32),
    )
    truth = GroundTruth(
        image=_owners([len(scene.boxes) for scene in scenes]),
        boxes=np.concatenate([scene.boxes for scene in scenes]),
        person_id=np.full(sum(len(scene.boxes) for scene in scenes), UNLABELLED),
        ignore=np.concatenate([scene.ignore for scene in scenes]),
    )
    result = evaluate_detection(detections, truth, len(scenes), score_threshold=0.5)
    return {f"{prefix}{name}": value for name, value in result.metrics().items()}


def _owners(counts: Sequence[int]) -> NDArray[np.int64]:
    """0 for each box of the first image, 1 for each of the second ..."""
    return np.repeat(np.arange(len(counts)), counts)
