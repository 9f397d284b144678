from __future__ import annotations

import numpy as np
import pytest

from personsearch_core.evaluation.records import UNLABELLED, Detections, GroundTruth, Queries
from personsearch_core.evaluation.zheng2017 import (
    BACKGROUND,
    JUNK,
    evaluate_zheng2017,
    label_detections,
    trapezoid_average_precision,
)

CAMERAS = np.array([1, 2, 2, 2])


def truth_of(*rows: tuple[int, int, int]) -> GroundTruth:
    """(image, x, person): boxes of 40 x 100 pixels at (x, 0)."""
    image, x, person = (np.array(column) for column in zip(*rows, strict=True))
    return GroundTruth(image, boxes_at(x), person)


def boxes_at(x: np.ndarray) -> np.ndarray:
    return np.stack([x, 0 * x, x + 40, 0 * x + 100], axis=1).astype(np.float32)


def found(*rows: tuple[int, int, float]) -> Detections:
    """(image, x, similarity to the query); all with score 1 but for a fourth value."""
    image, x, similarity = (np.array(column) for column in zip(*rows, strict=True))
    return Detections(
        image, boxes_at(x), np.ones(len(image), np.float32), similarity[:, None].astype(np.float32)
    )


QUERY = Queries(np.array([0]), boxes_at(np.array([0])), np.ones((1, 1), np.float32), np.array([7]))


def test_labels_are_person_junk_or_background() -> None:
    truth = truth_of((1, 0, 7), (1, 200, UNLABELLED))
    labels = label_detections(found((1, 2, 0), (1, 18, 0), (1, 600, 0), (1, 201, 0)), truth)
    assert labels.person.tolist() == [7, JUNK, BACKGROUND, UNLABELLED]


def test_the_best_overlap_keeps_the_person_and_the_others_are_junk() -> None:
    labels = label_detections(found((1, 6, 0), (1, 1, 0), (1, 1, 0)), truth_of((1, 0, 7)))
    assert labels.person.tolist() == [JUNK, 7, JUNK]


def test_frames_without_detections_add_no_misses() -> None:
    labels = label_detections(found((1, 600, 0)), truth_of((1, 0, 7), (2, 0, 7)))
    assert labels.missed.tolist() == [0]


def test_same_camera_junk_and_unlabelled_leave_the_ranking() -> None:
    truth = truth_of((0, 0, 7), (1, 0, 7), (1, 200, UNLABELLED))
    detections = found((0, 0, 9.0), (1, 18, 8.0), (1, 201, 7.0), (0, 600, 6.0), (1, 0, 5.0))
    result = evaluate_zheng2017(detections, QUERY, truth, CAMERAS)
    # What remains: the background box in the query's own frame, then the person.
    assert (result.rank[0], result.n_truths[0]) == (2, 1)
    assert result.mean_ap == pytest.approx((0 + 1 / 2) / 2)


def test_missed_people_count_in_the_denominator() -> None:
    truth = truth_of((1, 0, 7), (2, 0, 7), (3, 0, 7))
    result = evaluate_zheng2017(found((1, 0, 2.0), (2, 600, 1.0)), QUERY, truth, CAMERAS)
    assert (result.n_truths[0], result.mean_ap) == (2, 0.5)


def test_labels_are_decided_before_thresholding() -> None:
    truth = truth_of((1, 0, 7))
    detections = found((1, 0, 2.0), (1, 3, 1.0))
    scores = np.array([0.1, 0.9], np.float32)
    detections = Detections(detections.image, detections.boxes, scores, detections.embeddings)
    result = evaluate_zheng2017(detections, QUERY, truth, CAMERAS, score_threshold=0.5)
    # The better box is cut by its score; the other one stays junk, the person stays in the denominator.
    assert (result.n_truths[0], result.rank[0], result.mean_ap) == (1, 0, 0.0)


def test_ranks_past_the_last_are_ignored() -> None:
    rows = [(1, 600, 2.0)] * 1000 + [(2, 0, 1.0)]
    assert evaluate_zheng2017(found(*rows), QUERY, truth_of((2, 0, 7)), CAMERAS).mean_ap == 0.0
    assert evaluate_zheng2017(found(*rows[1:]), QUERY, truth_of((2, 0, 7)), CAMERAS).rank[0] == 1000


def test_ties_keep_the_order_of_the_input() -> None:
    tied = [(1, 600, 1.0), (2, 0, 1.0)]
    assert evaluate_zheng2017(found(*tied), QUERY, truth_of((2, 0, 7)), CAMERAS).rank[0] == 2
    assert evaluate_zheng2017(found(*tied[::-1]), QUERY, truth_of((2, 0, 7)), CAMERAS).rank[0] == 1


def test_trapezoid_starts_at_precision_one() -> None:
    assert trapezoid_average_precision(np.array([1]), 1) == 1.0
    assert trapezoid_average_precision(np.array([2, 3]), 2) == pytest.approx(
        ((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2
    )
