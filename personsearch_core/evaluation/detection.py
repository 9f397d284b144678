"""Detection figures: as person-search code computes them, and as COCO does."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from personsearch_core.evaluation.matching import (
    area,
    equal_pairs,
    group_by_image,
    iou,
    keep_by_score,
    shared_area,
)
from personsearch_core.evaluation.records import BoolArray, Detections, FloatArray, GroundTruth, IntArray

TRUE_POSITIVE_IOU = 0.5
MOST_PER_IMAGE = 100
"""COCO's figures take this many boxes per image, those of the highest scores."""
_COCO_AREA_RANGE = [[0.0, 1e10]]


@dataclass(frozen=True)
class DetectionResult:
    """`recall` and `ap` by the person-search rule; `coco_ap50` and `coco_ap` by pycocotools; fractions.

    `score_threshold` applies to the person-search rule.
    """

    score_threshold: float | None
    recall: float
    ap: float
    coco_ap50: float
    coco_ap: float

    def metrics(self) -> dict[str, float]:
        """The numbers that papers report, as fractions."""
        return {
            "recall": self.recall,
            "ap": self.ap,
            "coco_ap50": self.coco_ap50,
            "coco_ap": self.coco_ap,
        }


def evaluate_detection(
    detections: Detections,
    truth: GroundTruth,
    n_images: int,
    *,
    score_threshold: float | None = 0.5,
) -> DetectionResult:
    """Score boxes: those with `score >= score_threshold` by the person-search rule, all by COCO's.

    COCO's figures integrate over scores, so they take no threshold. Ignore regions of the ground truth are
    neither people to find nor mistakes.
    """
    kept = detections.select(keep_by_score(detections, score_threshold))
    recall, ap = person_search_detection(kept, truth, n_images)
    coco_ap50, coco_ap = coco_detection(detections, truth, n_images)
    return DetectionResult(score_threshold, recall, ap, coco_ap50, coco_ap)


def person_search_detection(detections: Detections, truth: GroundTruth, n_images: int) -> tuple[float, float]:
    """Recall and AP as person-search code computes them, over all given detections.

    A detection is a true positive when IoU >= 0.5 and it and its ground truth are each other's best; AP is
    step AP times recall. Among equal overlaps the more confident detection wins.
    """
    people = truth.select(~truth.ignore)
    people = people.select(np.argsort(people.image, kind="stable"))
    grouped = group_by_image(detections, np.arange(len(detections)), np.arange(n_images))
    true_positive = mutual_matches(grouped.image, grouped.boxes, people)
    counted = true_positive | ~_in_ignore_region(grouped.image, grouped.boxes, truth.select(truth.ignore))
    n_found = int(true_positive.sum())
    if not n_found:
        return 0.0, 0.0
    recall = n_found / len(people)
    return recall, step_ap(true_positive[counted], grouped.scores[counted]) * recall


def mutual_matches(image: IntArray, boxes: FloatArray, people: GroundTruth) -> BoolArray:
    """Which detections (n,) are mutual best matches with a ground truth; both ordered by image."""
    detection, person = equal_pairs(image, people.image)
    overlaps = iou(boxes[detection], people.boxes[person])
    best_person = _first_best(detection, overlaps, len(boxes))
    best_detection = _first_best(person, overlaps, len(people))
    pair = np.arange(len(overlaps))
    mutual = (best_person[detection] == pair) & (best_detection[person] == pair)
    true_positive = np.zeros(len(boxes), bool)
    true_positive[detection[mutual & (overlaps >= TRUE_POSITIVE_IOU)]] = True
    return true_positive


def step_ap(is_true: BoolArray, scores: FloatArray) -> float:
    """Step AP over the given detections (n,), equal scores grouped; at least one must be true."""
    positives = np.sort(scores[is_true])
    scores = np.sort(scores)
    at_least = len(scores) - np.searchsorted(scores, positives, side="left")
    true_at_least = len(positives) - np.searchsorted(positives, positives, side="left")
    return float((true_at_least / at_least).mean())


def coco_detection(detections: Detections, truth: GroundTruth, n_images: int) -> tuple[float, float]:
    """AP50 and AP (IoU 0.5 to 0.95) of one class by pycocotools, at most 100 boxes per image -> fractions."""
    if not len(detections) or truth.ignore.all():
        return 0.0, 0.0
    evaluation = coco_evaluation(detections, truth, n_images)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, 0]
    return float(precision[0].mean()), float(precision.mean())


def coco_evaluation(detections: Detections, truth: GroundTruth, n_images: int) -> COCOeval:
    """pycocotools' matches of at least one detection with ground truth: `evalImgs`, one entry per image.

    Its ids are rows of `detections` and of `truth`, counted from 1.
    """
    annotations = COCO()
    annotations.dataset = {
        "images": [{"id": i} for i in range(n_images)],
        "categories": [{"id": 1}],
        "annotations": _coco_annotations(truth),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        annotations.createIndex()
        found = annotations.loadRes(_coco_results(detections))
        evaluation = COCOeval(annotations, found, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = _COCO_AREA_RANGE, ["all"]
        evaluation.params.maxDets = [MOST_PER_IMAGE]
        evaluation.evaluate()
    return evaluation


def _coco_annotations(truth: GroundTruth) -> list[dict[str, object]]:
    return [
        {
            "id": i + 1,
            "image_id": int(image),
            "category_id": 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(ignore),
        }
        for i, (image, box, ignore) in enumerate(
            zip(truth.image, _xywh(truth.boxes).tolist(), truth.ignore, strict=True)
        )
    ]


def _coco_results(detections: Detections) -> FloatArray:
    n_rows = len(detections)
    return np.column_stack(
        [detections.image, _xywh(detections.boxes), detections.scores, np.ones(n_rows)]
    ).astype(np.float64)


def _xywh(boxes: FloatArray) -> FloatArray:
    boxes = boxes.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _first_best(owner: IntArray, overlaps: FloatArray, n_owners: int) -> IntArray:
    """For each owner, the index of its first pair of highest overlap -> (n_owners,), -1 without a pair."""
    order = np.lexsort((np.arange(len(owner)), -overlaps, owner))
    first = order[np.flatnonzero(np.diff(owner[order], prepend=-1))]
    best = np.full(n_owners, -1)
    best[owner[first]] = first
    return best


def _in_ignore_region(image: IntArray, boxes: FloatArray, regions: GroundTruth) -> BoolArray:
    """Detections (n,) with at least half their area in one ignore region, as COCO treats crowds."""
    inside = np.zeros(len(boxes), bool)
    order = np.argsort(regions.image, kind="stable")
    detection, region = equal_pairs(image, regions.image[order])
    own = boxes[detection]
    covered = shared_area(own, regions.boxes[order[region]]) >= TRUE_POSITIVE_IOU * area(own)
    inside[detection[covered]] = True
    return inside
