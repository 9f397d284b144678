"""Each typical mistake, made on purpose, gives the wrong number known for it, so the tests would see it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.searches import search_lists
from personsearch_core.evaluation import matching, ranking, rankings
from personsearch_core.evaluation.ranking import FoundTruths
from personsearch_core.evaluation.records import Detections, FloatArray, GalleryLists, IntArray
from personsearch_core.evaluation.zheng2017 import average_precisions
from tests.personsearch_core.evaluation.oracles import CuhkSysuOracle


def mean_ap(oracle: CuhkSysuOracle, lists: GalleryLists | None = None) -> float:
    lists = lists if lists is not None else oracle.lists
    return search_lists(oracle.detections, oracle.queries, lists).mean_ap


def check(oracle: CuhkSysuOracle, mistake: str, wrong: float, tolerance: float = 1e-6) -> None:
    right = oracle.expected["search"]["gallery_100"]["mAP"]
    assert wrong == pytest.approx(oracle.expected["wrong_variants_mAP_g100"][mistake], abs=tolerance)
    assert abs(wrong - right) > 2 * tolerance


def without_rows(lists: GalleryLists, drop: np.ndarray) -> GalleryLists:
    query = np.repeat(np.arange(len(lists)), np.diff(lists.offsets))[~drop]
    return GalleryLists.from_rows(
        query, lists.image[~drop], lists.is_positive[~drop], lists.boxes[~drop], len(lists)
    )


def test_ap_without_recall(cuhk_sysu: CuhkSysuOracle, monkeypatch: pytest.MonkeyPatch) -> None:
    def over_found(found: FoundTruths, n_truths: IntArray) -> FloatArray:
        n_found = np.bincount(found.query, minlength=len(n_truths))
        return right(found, n_found)

    right = ranking.step_average_precision
    monkeypatch.setattr(ranking, "step_average_precision", over_found)
    check(cuhk_sysu, "AP not multiplied by recall", mean_ap(cuhk_sysu))


def test_fixed_overlap(cuhk_sysu: CuhkSysuOracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "match_threshold", lambda boxes: np.full(len(boxes), 0.5))
    check(cuhk_sysu, "fixed IoU 0.5", mean_ap(cuhk_sysu))


def test_score_above_threshold(cuhk_sysu: CuhkSysuOracle, monkeypatch: pytest.MonkeyPatch) -> None:
    def strictly(detections: Detections, score_threshold: float | None) -> IntArray:
        return np.flatnonzero(detections.scores > score_threshold)

    monkeypatch.setattr(rankings, "keep_by_score", strictly)
    check(cuhk_sysu, "score > 0.5 instead of >=", mean_ap(cuhk_sysu))


def test_query_image_removed(cuhk_sysu: CuhkSysuOracle) -> None:
    lists = cuhk_sysu.lists
    own_image = np.repeat(cuhk_sysu.queries.image, np.diff(lists.offsets))
    wrong = mean_ap(cuhk_sysu, without_rows(lists, lists.image == own_image))
    check(cuhk_sysu, "query image removed from the gallery", wrong)


def test_repeats_not_counted(cuhk_sysu: CuhkSysuOracle) -> None:
    lists = cuhk_sysu.lists
    query = np.repeat(np.arange(len(lists)), np.diff(lists.offsets))
    first = np.unique(np.stack([query, lists.image]), axis=1, return_index=True)[1]
    drop = np.ones(len(query), bool)
    drop[first] = False
    assert np.unique(query[drop]).tolist() == [1250, 1633, 1997, 2561]
    wrong = mean_ap(cuhk_sysu, without_rows(lists, drop))
    check(cuhk_sysu, "repeated gallery images dropped from the ground-truth count", wrong)


def test_trapezoid(cuhk_sysu: CuhkSysuOracle, monkeypatch: pytest.MonkeyPatch) -> None:
    def trapezoid(found: FoundTruths, n_truths: IntArray) -> FloatArray:
        return average_precisions(found.query, found.at_least, n_truths)[0]

    monkeypatch.setattr(ranking, "step_average_precision", trapezoid)
    # Where the known number came from, the trapezoid before a tie began a little earlier.
    check(cuhk_sysu, "trapezoid AP", mean_ap(cuhk_sysu), tolerance=1e-5)
