"""Which people each detection found, and the figures at each threshold."""

from __future__ import annotations

import numpy as np
import pytest

from personsearch_core.evaluation.detection import coco_detection
from personsearch_core.evaluation.detection_curves import (
    at_threshold,
    detection_curve,
    judge_detections,
    recall_by_size,
)
from personsearch_core.evaluation.records import Detections, GroundTruth

SMALL, TALL, NOBODY = [0.0, 0, 20, 40], [100.0, 0, 150, 120], [300.0, 0, 340, 90]
CROWD = [500.0, 0, 700, 200]


def detections(rows: list[tuple[int, list[float], float]]) -> Detections:
    image, boxes, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        np.array(image, np.int64),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.zeros((len(image), 0), np.float32),
    )


def truth(rows: list[tuple[int, list[float], bool]]) -> GroundTruth:
    image, boxes, ignore = zip(*rows, strict=True)
    return GroundTruth(np.array(image), np.array(boxes, np.float32), np.full(len(rows), -1), np.array(ignore))


PEOPLE = truth([(0, SMALL, False), (0, TALL, False), (1, TALL, False), (1, CROWD, True)])
INSIDE = [550.0, 50, 590, 150]


def test_each_detection_is_told_apart() -> None:
    found = detections([(0, TALL, 0.6), (0, TALL, 0.9), (0, NOBODY, 0.8), (1, INSIDE, 0.95), (1, TALL, 0.4)])
    judged = judge_detections(found, PEOPLE, 2)
    assert judged.person.tolist() == [-1, 1, -1, -1, 2]  # the better of two takes the person
    assert judged.counted.tolist() == [True, True, True, False, True]
    assert judged.found_at.tolist() == pytest.approx([-np.inf, 0.9, 0.4, -np.inf])


def test_figures_at_a_threshold_are_those_of_its_detections_alone() -> None:
    found = detections([(0, TALL, 0.6), (0, TALL, 0.9), (0, NOBODY, 0.8), (1, INSIDE, 0.95), (1, TALL, 0.4)])
    judged = judge_detections(found, PEOPLE, 2)
    at = at_threshold(judged, 0.5)
    assert (at.recall, at.precision, at.false_per_image) == pytest.approx((1 / 3, 1 / 3, 1.0))
    at = at_threshold(judged, 0.3)
    assert (at.recall, at.precision, at.false_per_image) == pytest.approx((2 / 3, 1 / 2, 1.0))
    kept = judge_detections(found.select(found.scores >= 0.5), PEOPLE, 2)
    assert at_threshold(kept, 0.0) == at_threshold(judged, 0.5)
    sizes = recall_by_size(judged, 0.3, groups=2)
    assert [(each.low, each.high, each.n_people) for each in sizes] == [(40, 120, 2), (120, 120, 1)]
    assert [each.recall for each in sizes] == [0.5, 1.0]


def test_the_area_below_the_curve_is_cocos_ap50() -> None:
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 500, (300, 2))
    people = np.concatenate([boxes, boxes + rng.uniform(20, 80, (300, 2))], axis=1)
    image = rng.integers(0, 20, 300)
    shaken = people + rng.normal(0, 6, people.shape)
    found = Detections(
        image, shaken.astype(np.float32), rng.random(300).astype(np.float32), np.zeros((300, 0))
    )
    annotated = GroundTruth(image, people.astype(np.float32), np.full(300, -1))
    curve = detection_curve(judge_detections(found, annotated, 20))
    at = np.searchsorted(curve.recall, np.linspace(0, 1, 101), side="left")
    sampled = np.append(curve.precision, 0.0)[at]
    assert sampled.mean() == pytest.approx(coco_detection(found, annotated, 20)[0], abs=1e-6)
    assert (np.diff(curve.recall) >= 0).all() and (np.diff(curve.false_per_image) >= 0).all()


def test_no_detections_and_no_people() -> None:
    nothing = judge_detections(detections([]), PEOPLE, 2)
    assert not len(detection_curve(nothing).recall)
    assert at_threshold(nothing, 0.5).recall == 0.0
    nobody = judge_detections(detections([(0, TALL, 0.9)]), truth([(0, CROWD, True)]), 1)
    assert not len(detection_curve(nobody).recall) and recall_by_size(nobody, 0.5) == []
    assert at_threshold(nobody, 0.5).false_per_image == 1.0
