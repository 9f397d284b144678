from __future__ import annotations

import numpy as np
import pytest

from personsearch_core.evaluation.detection import (
    coco_detection,
    evaluate_detection,
    person_search_detection,
)
from personsearch_core.evaluation.records import Detections, GroundTruth

PERSON = [10.0, 10.0, 50.0, 110.0]
CROWD = [200.0, 0.0, 400.0, 200.0]


def found(boxes: list[list[float]], scores: list[float]) -> Detections:
    n = len(boxes)
    return Detections(
        np.zeros(n, np.int64),
        np.array(boxes, np.float32).reshape(n, 4),
        np.array(scores, np.float32),
        np.zeros((n, 0), np.float32),
    )


def people(boxes: list[list[float]], ignore: list[bool] | None = None) -> GroundTruth:
    n = len(boxes)
    flags = np.array(ignore if ignore is not None else [False] * n)
    return GroundTruth(np.zeros(n, np.int64), np.array(boxes, np.float32), np.full(n, -1), flags)


def test_only_the_best_of_two_detections_of_a_person_counts() -> None:
    shifted = [12.0, 10.0, 52.0, 110.0]
    recall, ap = person_search_detection(found([PERSON, shifted], [0.6, 0.9]), people([PERSON]), 1)
    assert (recall, ap) == (1.0, 0.5)


def test_of_equal_boxes_the_more_confident_one_counts() -> None:
    for order in ([0.6, 0.9], [0.9, 0.6]):
        assert person_search_detection(found([PERSON, PERSON], order), people([PERSON]), 1) == (1.0, 1.0)


def test_images_without_detections_add_their_people() -> None:
    truth = GroundTruth(np.array([0, 1]), np.array([PERSON, PERSON], np.float32), np.array([-1, -1]))
    assert person_search_detection(found([PERSON], [0.9]), truth, 2) == (0.5, 0.5)


def test_detections_in_ignore_regions_are_neither_right_nor_wrong() -> None:
    inside = [250.0, 50.0, 290.0, 150.0]
    truth = people([PERSON, CROWD], [False, True])
    detections = found([inside, PERSON], [0.95, 0.9])
    assert person_search_detection(detections, truth, 1) == (1.0, 1.0)
    assert coco_detection(detections, truth, 1) == pytest.approx((1.0, 1.0))
    assert person_search_detection(detections, people([PERSON]), 1) == (1.0, 0.5)
    assert coco_detection(detections, people([PERSON]), 1) == pytest.approx((0.5, 0.5))


def test_no_detections_and_no_people() -> None:
    nothing = evaluate_detection(found([], []), people([PERSON]), 1)
    assert set(nothing.metrics().values()) == {0.0}
    nobody = GroundTruth(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert set(evaluate_detection(found([PERSON], [0.9]), nobody, 1).metrics().values()) == {0.0}
