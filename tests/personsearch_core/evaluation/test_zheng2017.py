from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.searches import search_zheng2017
from personsearch_core.evaluation.records import Detections, GroundTruth, Queries
from personsearch_core.evaluation.zheng2017 import (
    BACKGROUND,
    JUNK,
    average_precisions,
    label_detections,
)
from personsearch_core.identities import UNLABELLED
from tests.personsearch_core.evaluation.test_properties import Problem, problem

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
    assert labels.person_id.tolist() == [7, JUNK, BACKGROUND, UNLABELLED]


def test_the_best_overlap_keeps_the_person_and_the_others_are_junk() -> None:
    labels = label_detections(found((1, 6, 0), (1, 1, 0), (1, 1, 0)), truth_of((1, 0, 7)))
    assert labels.person_id.tolist() == [JUNK, 7, JUNK]


def test_frames_without_detections_add_no_misses() -> None:
    labels = label_detections(found((1, 600, 0)), truth_of((1, 0, 7), (2, 0, 7)))
    assert labels.missed.tolist() == [0]


def test_same_camera_junk_and_unlabelled_leave_the_ranking() -> None:
    truth = truth_of((0, 0, 7), (1, 0, 7), (1, 200, UNLABELLED))
    detections = found((0, 0, 9.0), (1, 18, 8.0), (1, 201, 7.0), (0, 600, 6.0), (1, 0, 5.0))
    result = search_zheng2017(detections, QUERY, truth, CAMERAS)
    # What remains: the background box in the query's own frame, then the person.
    assert (result.rank[0], result.n_truths[0]) == (2, 1)
    assert result.mean_ap == pytest.approx((0 + 1 / 2) / 2)


def test_missed_people_count_in_the_denominator() -> None:
    truth = truth_of((1, 0, 7), (2, 0, 7), (3, 0, 7))
    result = search_zheng2017(found((1, 0, 2.0), (2, 600, 1.0)), QUERY, truth, CAMERAS)
    assert (result.n_truths[0], result.mean_ap) == (2, 0.5)


@pytest.mark.parametrize("cameras", [[1, -1, 2, 2], [2, -1, 1, 2]])
def test_an_unknown_camera_is_a_camera_of_its_own(cameras: list[int]) -> None:
    """The neighbours' numbers, 6 and 8, are those with which a key of camera -1 would collide."""
    truth = truth_of((0, 0, 7), (1, 0, 7), (2, 0, 7), (3, 0, 7), (1, 200, 6), (2, 200, 8), (3, 200, 6))
    everyone = found(*((*box, 1.0) for box in zip(truth.image, truth.boxes[:, 0], strict=True)))
    for image in range(4):
        for person in (6, 7, 8):
            query = Queries(np.array([image]), QUERY.boxes, QUERY.embeddings, np.array([person]))
            result = search_zheng2017(everyone, query, truth, np.array(cameras))
            of_person = truth.image[truth.person_id == person]
            assert result.n_truths[0] == sum(cameras[other] != cameras[image] for other in of_person)


def test_labels_are_decided_before_thresholding() -> None:
    truth = truth_of((1, 0, 7))
    detections = found((1, 0, 2.0), (1, 3, 1.0))
    scores = np.array([0.1, 0.9], np.float32)
    detections = Detections(detections.image, detections.boxes, scores, detections.embeddings)
    result = search_zheng2017(detections, QUERY, truth, CAMERAS, score_threshold=0.5)
    # The better box is cut by its score; the other one stays junk, the person stays in the denominator.
    assert (result.n_truths[0], result.rank[0], result.mean_ap) == (1, 0, 0.0)


def test_ranks_past_the_last_are_ignored() -> None:
    rows = [(1, 600, 2.0)] * 1000 + [(2, 0, 1.0)]
    assert search_zheng2017(found(*rows), QUERY, truth_of((2, 0, 7)), CAMERAS).mean_ap == 0.0
    assert search_zheng2017(found(*rows[1:]), QUERY, truth_of((2, 0, 7)), CAMERAS).rank[0] == 1000


def test_ties_keep_the_order_of_the_input() -> None:
    tied = [(1, 600, 1.0), (2, 0, 1.0)]
    assert search_zheng2017(found(*tied), QUERY, truth_of((2, 0, 7)), CAMERAS).rank[0] == 2
    assert search_zheng2017(found(*tied[::-1]), QUERY, truth_of((2, 0, 7)), CAMERAS).rank[0] == 1


def test_trapezoid_starts_at_precision_one() -> None:
    query, ranks, n_truths = np.array([2, 0, 2]), np.array([3, 1, 2]), np.array([1, 4, 2])
    ap, first = average_precisions(query, ranks, n_truths)
    assert ap == pytest.approx([1.0, 0.0, ((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2])
    assert first.tolist() == [1, 0, 2]


def literal(p: Problem, threshold: float) -> list[float]:
    """The protocol box by box and rank by rank, as its authors' code goes about it."""
    person = np.zeros(len(p.detections), int)
    overlap = np.zeros(len(p.detections))
    missed: list[tuple[int, int]] = []
    for frame in np.unique(p.detections.image):
        truths = np.flatnonzero(p.truth.image == frame)
        rows = np.flatnonzero(p.detections.image == frame)
        seen = set()
        for row in rows:
            overlaps = [overlap_with_plus_one(p.detections.boxes[row], p.truth.boxes[t]) for t in truths]
            overlap[row] = max(overlaps, default=0.0)
            person[row] = BACKGROUND if overlap[row] < 0.3 else JUNK
            if overlap[row] >= 0.5:
                best = int(np.argmax(overlaps))
                seen.add(best)
                person[row] = p.truth.person_id[truths[best]]
        for identity in np.unique(person[rows]):
            same = rows[person[rows] == identity]
            if identity >= 0:
                person[np.delete(same, np.argmax(overlap[same]))] = JUNK
        missed += [
            (int(p.truth.person_id[t]), int(p.cameras[frame])) for i, t in enumerate(truths) if i not in seen
        ]
    cameras = p.cameras[p.detections.image]
    values = []
    for image, identity, embedding in zip(
        p.queries.image, p.queries.person_ids(), p.queries.embeddings, strict=True
    ):
        camera = p.cameras[image]
        good = (person == identity) & (cameras != camera)
        n_good = int(good.sum()) + sum(m[0] == identity and m[1] != camera for m in missed)
        out = (person == JUNK) | (person == UNLABELLED) | ((person == identity) & (cameras == camera))
        shown = np.flatnonzero(~out & (p.detections.scores >= threshold))
        order = shown[np.argsort(-(p.detections.embeddings[shown] @ embedding), kind="stable")]
        ap, recall, precision, hits = 0.0, 0.0, 1.0, 0
        for rank, row in enumerate(order[:1000], 1):
            hits += bool(good[row])
            now = hits / n_good if n_good else 0.0
            ap += (now - recall) * (precision + hits / rank) / 2
            recall, precision = now, hits / rank
        values.append(ap)
    return values


def overlap_with_plus_one(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(float), b.astype(float)
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5]))
@settings(deadline=None, max_examples=80)
def test_equals_the_literal_protocol(seed: int, threshold: float) -> None:
    p = problem(seed)
    result = search_zheng2017(p.detections, p.queries, p.truth, p.cameras, score_threshold=threshold)
    np.testing.assert_allclose(result.ap, literal(p, threshold), atol=1e-12)
