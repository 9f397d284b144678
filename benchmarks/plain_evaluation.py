"""The protocols in plain code: a loop over the gallery's images for each query.

One product per image, vectorised within the image, and scikit-learn's average precision over the whole
ranking. Tests compare the fast evaluators with its results, benchmarks.evaluation with its times.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score

from personsearch_core.evaluation.records import (
    Detections,
    FloatArray,
    GalleryLists,
    GroundTruth,
    IntArray,
    Queries,
)

ByImage = dict[int, tuple[FloatArray, FloatArray]]
"""Boxes and embeddings of the kept detections, for each image that has any."""


def plain_cuhk_sysu(
    detections: Detections, queries: Queries, lists: GalleryLists, score_threshold: float = 0.5
) -> list[tuple[float, int]]:
    """(AP, rank of the first positive or 0) of each query that `queries` has."""
    by_image = _by_image(detections, score_threshold)
    outcomes = []
    for query in range(len(queries)):
        rows = range(lists.offsets[query], lists.offsets[query + 1])
        truths = [lists.boxes[row] if lists.is_positive[row] else None for row in rows]
        images = [int(lists.image[row]) for row in rows]
        n_truths = sum(truth is not None for truth in truths)
        gallery: dict[int, FloatArray | None] = {}
        for image, truth in zip(images, truths, strict=True):
            gallery.setdefault(image, truth)
        outcomes.append(_rank(by_image, gallery, queries.embeddings[query], n_truths))
    return outcomes


def plain_prw(
    detections: Detections,
    queries: Queries,
    truth: GroundTruth,
    cameras: IntArray,
    *,
    cross_camera: bool = False,
    score_threshold: float = 0.5,
) -> list[tuple[float, int]]:
    """(AP, rank of the first positive or 0) of each query."""
    by_image = _by_image(detections, score_threshold)
    boxes: dict[tuple[int, int], FloatArray] = {}
    for image, box, person in zip(truth.image, truth.boxes.astype(np.float64), truth.person_id, strict=True):
        width, height = box[2:] - box[:2]
        x, y = max(box[0], 0.0), max(box[1], 0.0)
        boxes.setdefault((int(image), int(person)), np.trunc([x, y, x + width, y + height]))
    outcomes = []
    for image, person, embedding in zip(queries.image, queries.person_ids(), queries.embeddings, strict=True):
        gallery = {
            other: boxes.get((other, int(person)))
            for other in range(len(cameras))
            if other != image and not (cross_camera and cameras[other] == cameras[image])
        }
        n_truths = sum(box is not None for box in gallery.values())
        outcomes.append(_rank(by_image, gallery, embedding, n_truths))
    return outcomes


def _by_image(detections: Detections, score_threshold: float) -> ByImage:
    rows: dict[int, list[int]] = {}
    for row, (image, score) in enumerate(zip(detections.image, detections.scores, strict=True)):
        if score >= score_threshold:
            rows.setdefault(int(image), []).append(row)
    return {i: (detections.boxes[r].astype(np.float64), detections.embeddings[r]) for i, r in rows.items()}


def _rank(
    by_image: ByImage, gallery: dict[int, FloatArray | None], embedding: FloatArray, n_truths: int
) -> tuple[float, int]:
    similarities: list[float] = []
    labels: list[bool] = []
    for image, truth in gallery.items():
        if image not in by_image:
            continue
        boxes, embeddings = by_image[image]
        similarity = embeddings @ embedding
        label = np.zeros(len(similarity), bool)
        if truth is not None:
            matches = np.flatnonzero(_overlap(boxes, truth) >= _wanted_overlap(truth))
            if len(matches):
                label[matches[similarity[matches].argmax()]] = True
        similarities.extend(similarity.tolist())
        labels.extend(label.tolist())
    if not any(labels):
        return 0.0, 0
    recall = sum(labels) / n_truths
    # A positive comes last among its ties.
    order = np.lexsort((np.array(labels), -np.array(similarities)))
    rank = int(np.array(labels)[order].argmax()) + 1
    return float(average_precision_score(labels, similarities)) * recall, rank


def _overlap(boxes: FloatArray, truth: FloatArray) -> FloatArray:
    sides = np.minimum(boxes[:, 2:], truth[2:]) - np.maximum(boxes[:, :2], truth[:2])
    intersection = np.maximum(sides, 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (truth[2:] - truth[:2]).prod()
    return np.asarray(intersection / (areas - intersection))


def _wanted_overlap(truth: FloatArray) -> float:
    width, height = truth[2:] - truth[:2]
    return float(min(0.5, width * height / ((width + 10) * (height + 10))))
