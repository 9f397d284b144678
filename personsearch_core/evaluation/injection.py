"""Ground-truth injection: search among perfect boxes, to see what detection costs."""

from __future__ import annotations

import numpy as np

from personsearch_core.evaluation.records import Detections, FloatArray, GroundTruth


def inject_ground_truth(truth: GroundTruth, embeddings: FloatArray) -> Detections:
    """Every ground-truth box as a detection with score 1, except ignore regions.

    `embeddings` (n, d) belong to the boxes of `truth`, in its order.
    """
    people = np.flatnonzero(~truth.ignore)
    ones = np.ones(len(people), np.float32)
    return Detections(truth.image[people], truth.boxes[people], ones, embeddings[people])
