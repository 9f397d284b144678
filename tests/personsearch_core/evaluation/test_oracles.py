"""The numbers that the community's own code gave on the real protocols: mAP to 1e-9, hits exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.searches import search_lists, search_prw, search_zheng2017
from personsearch_core.evaluation.boxes_per_image import score_threshold_for, top_k_of_each_image
from personsearch_core.evaluation.detection import evaluate_detection
from personsearch_core.evaluation.ranking import SearchResult
from tests.personsearch_core.evaluation.oracles import CuhkSysuOracle, PrwOracle

BUDGETS = ("1", "2", "3", "5", "10", "all")


def check(result: SearchResult, expected: dict[str, float]) -> None:
    assert result.mean_ap == pytest.approx(expected["mAP"], abs=1e-9)
    ambiguous = expected.get("ambiguous", 0)
    assert result.ambiguous == ambiguous
    for k in (1, 5, 10):
        assert round(result.top(k) * len(result)) == pytest.approx(
            expected[f"top{k}"] * len(result), abs=ambiguous + 1e-6
        )


def test_cuhk_sysu_g100(cuhk_sysu: CuhkSysuOracle) -> None:
    result = search_lists(cuhk_sysu.detections, cuhk_sysu.queries, cuhk_sysu.lists)
    expected = cuhk_sysu.expected["search"]["gallery_100"]
    assert len(result) == expected["queries"]
    check(result, expected)


def test_cuhk_sysu_query_by_query(cuhk_sysu: CuhkSysuOracle, shared: Path) -> None:
    result = search_lists(cuhk_sysu.detections, cuhk_sysu.queries, cuhk_sysu.lists)
    expected = pq.read_table(shared / "oracles/cuhk_sysu/expected_per_query_g100.parquet")
    np.testing.assert_allclose(result.ap, expected["ap"].to_numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.recall, expected["recall"].to_numpy(), rtol=0, atol=1e-12)
    for k in (1, 5, 10):
        np.testing.assert_array_equal(result.hits(k), expected[f"hit{k}"].to_numpy())


@pytest.mark.parametrize("cross_camera", [False, True])
def test_prw(prw: PrwOracle, cross_camera: bool) -> None:
    result = search_prw(prw.detections, prw.queries, prw.truth, prw.cameras, cross_camera=cross_camera)
    check(result, prw.expected["cross_camera_thr0.5" if cross_camera else "all_cameras_thr0.5"])


def threshold_of(prw: PrwOracle, budget: str) -> float | None:
    if budget == "all":
        return None
    return score_threshold_for(prw.detections.scores, len(prw.cameras), int(budget))


@pytest.mark.parametrize("budget", BUDGETS)
def test_prw_boxes_per_image_on_average(prw: PrwOracle, budget: str) -> None:
    expected = prw.expected["boxes_per_image"][budget]
    threshold = threshold_of(prw, budget)
    assert threshold == expected.get("score_threshold")
    result = search_prw(prw.detections, prw.queries, prw.truth, prw.cameras, score_threshold=threshold)
    check(result, expected["average_k"])


@pytest.mark.parametrize("budget", BUDGETS[:-1])
def test_prw_top_k_of_each_image(prw: PrwOracle, budget: str) -> None:
    kept = prw.detections.select(top_k_of_each_image(prw.detections, int(budget)))
    result = search_prw(kept, prw.queries, prw.truth, prw.cameras, score_threshold=None)
    check(result, prw.expected["boxes_per_image"][budget]["top_k_of_each_image"])


@pytest.mark.parametrize("budget", BUDGETS)
def test_zheng2017(prw: PrwOracle, budget: str) -> None:
    result = search_zheng2017(
        prw.detections, prw.queries, prw.truth, prw.cameras, score_threshold=threshold_of(prw, budget)
    )
    expected = prw.expected["boxes_per_image"][budget]["zheng2017"]
    numbers = result.metrics() | {"rank20": result.top(20)}
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("threshold", ["0.5", "0.01"])
@pytest.mark.parametrize("dataset", ["cuhk_sysu", "prw"])
def test_detection(dataset: str, threshold: str, request: pytest.FixtureRequest) -> None:
    oracle = request.getfixturevalue(dataset)
    n_images = oracle.n_images if dataset == "cuhk_sysu" else len(oracle.cameras)
    result = evaluate_detection(oracle.detections, oracle.truth, n_images, score_threshold=float(threshold))
    expected = oracle.expected["detection"][threshold]
    assert {"recall": result.recall, "ap": result.ap} == pytest.approx(expected, abs=1e-9)
    whole = evaluate_detection(oracle.detections, oracle.truth, n_images, score_threshold=None)
    assert (result.coco_ap50, result.coco_ap) == (whole.coco_ap50, whole.coco_ap)
    # COCO's rule assigns by score and samples recall at 101 points, so it lies near, not on, the other one.
    assert result.coco_ap50 == pytest.approx(whole.ap, abs=0.01)
    assert 0.4 < result.coco_ap < result.coco_ap50
