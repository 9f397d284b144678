"""Which people each detection found, and what that gives at every threshold: precision, recall, mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from personsearch_core.evaluation.detection import coco_evaluation
from personsearch_core.evaluation.records import BoolArray, Detections, FloatArray, GroundTruth, IntArray


@dataclass(frozen=True, eq=False)
class JudgedDetections:
    """COCO's matches at IoU 0.5, in which the detection of the highest score takes a person first.

    Of each detection (n,): its `scores`, the row of the `person` in the ground truth that it found, -1 for
    none, and whether it is `counted`, which one in an ignore region or beyond COCO's 100 per image is not.
    Of each row of the ground truth (m,): whether it is a person to find, its height in pixels, and the score
    at which it was `found_at`, -inf for never. A higher threshold only removes detections: the other matches
    stay.
    """

    scores: FloatArray
    person: IntArray
    counted: BoolArray
    is_person: BoolArray
    heights: FloatArray
    found_at: FloatArray
    n_images: int


@dataclass(frozen=True, eq=False)
class DetectionCurve:
    """Figures at each threshold (n,), from the highest down; `precision` is the best at that recall or more,
    so that the area below it is COCO's AP50.
    """

    threshold: FloatArray
    recall: FloatArray
    precision: FloatArray
    false_per_image: FloatArray


@dataclass(frozen=True)
class AtThreshold:
    """Figures of all detections of at least one score."""

    recall: float
    precision: float
    false_per_image: float


@dataclass(frozen=True)
class RecallOfSize:
    """Of `n_people` from `low` to `high` pixels high, the fraction that was found."""

    low: float
    high: float
    n_people: int
    recall: float


def judge_detections(detections: Detections, truth: GroundTruth, n_images: int) -> JudgedDetections:
    """Match all detections with people, image by image."""
    person = np.full(len(detections), -1)
    counted = np.zeros(len(detections), bool)
    found_at = np.full(len(truth), -np.inf)
    images = coco_evaluation(detections, truth, n_images).evalImgs if len(detections) else []
    for image in filter(None, images):
        row = np.asarray(image["dtIds"], np.int64) - 1
        matched = np.asarray(image["dtMatches"][0], np.int64) - 1
        ignored = np.asarray(image["dtIgnore"][0], bool)
        counted[row] = ~ignored
        person[row] = np.where(ignored, -1, matched)
    is_match = person >= 0
    found_at[person[is_match]] = detections.scores[is_match]
    heights = truth.boxes[:, 3] - truth.boxes[:, 1]
    return JudgedDetections(detections.scores, person, counted, ~truth.ignore, heights, found_at, n_images)


def detection_curve(judged: JudgedDetections) -> DetectionCurve:
    """Precision, recall and mistakes at every threshold; empty if there are no people or no detections."""
    scores, found = judged.scores[judged.counted], judged.person[judged.counted] >= 0
    order = np.argsort(-scores, kind="stable")
    n_people = int(judged.is_person.sum())
    if not n_people:
        order = order[:0]
    true = np.cumsum(found[order])
    kept = np.arange(1, len(order) + 1)
    precision = np.maximum.accumulate((true / kept)[::-1])[::-1]
    false_per_image = (kept - true) / max(judged.n_images, 1)
    return DetectionCurve(scores[order], true / max(n_people, 1), precision, false_per_image)


def at_threshold(judged: JudgedDetections, score_threshold: float) -> AtThreshold:
    """Recall, precision and false positives per image of the detections of at least this score."""
    kept = judged.counted & (judged.scores >= score_threshold)
    true = int((judged.person[kept] >= 0).sum())
    n_people, n_kept = int(judged.is_person.sum()), int(kept.sum())
    false_per_image = (n_kept - true) / max(judged.n_images, 1)
    return AtThreshold(true / max(n_people, 1), true / max(n_kept, 1), false_per_image)


def recall_by_size(judged: JudgedDetections, score_threshold: float, groups: int = 5) -> list[RecallOfSize]:
    """Recall of people by height, in at most `groups` groups of about the same number, small people first."""
    heights = judged.heights[judged.is_person]
    found = judged.found_at[judged.is_person] >= score_threshold
    order = np.argsort(heights, kind="stable")
    parts = np.array_split(order, min(groups, len(order))) if len(order) else []
    return [
        RecallOfSize(
            float(heights[part].min()), float(heights[part].max()), len(part), float(found[part].mean())
        )
        for part in parts
    ]
