"""Two readings of "k boxes per image": a global score threshold, and each image's own k best."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.records import Detections, FloatArray, IntArray


def score_threshold_for(scores: FloatArray, n_images: int, boxes_per_image: float) -> float:
    """The threshold that leaves `boxes_per_image` boxes per image on average: the (k * N)-th highest score.

    `n_images` is N, all test images, including those without detections; keep by `score >= threshold`. If
    there are fewer boxes, the lowest score.
    """
    if not math.isfinite(boxes_per_image * n_images):
        raise PersonSearchError(f"{boxes_per_image} boxes per image are too many")
    wanted = round(boxes_per_image * n_images)
    if wanted < 1:
        raise PersonSearchError(
            f"{boxes_per_image} boxes per image for {n_images} images is less than one box"
        )
    if not len(scores):
        raise PersonSearchError("no detections to choose a score threshold from")
    place = max(len(scores) - wanted, 0)
    return float(np.partition(scores, place)[place])


def top_k_of_each_image(detections: Detections, k: int) -> IntArray:
    """Rows, in input order, of each image's k highest scores; among equal scores the first rows."""
    if k < 1:
        raise PersonSearchError(f"boxes per image must be at least 1, not {k}")
    order = np.lexsort((-detections.scores, detections.image))
    image = detections.image[order]
    place = np.arange(len(order)) - np.searchsorted(image, image)
    return np.sort(order[place < k])


def best_budget(mean_aps: Mapping[float, float]) -> float:
    """The number of boxes per image with the best mAP; among equals the smallest."""
    return max(sorted(mean_aps), key=mean_aps.__getitem__)
