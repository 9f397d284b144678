"""`evaluate`: every setting as if it were alone, with what settings share computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.searches import search_lists, search_prw, search_zheng2017
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.boxes_per_image import score_threshold_for, top_k_of_each_image
from personsearch_core.evaluation.detection import evaluate_detection
from personsearch_core.evaluation.front import EvaluationResults, evaluate
from personsearch_core.evaluation.inputs import EvaluationInputs, SearchProtocol
from personsearch_core.evaluation.parallel import serially
from personsearch_core.evaluation.records import GroundTruth
from personsearch_core.evaluation.settings import Setting, settings_of
from personsearch_core.evaluation.top_matches import shows_person
from personsearch_core.identities import UNLABELLED
from personsearch_core.recipes import ContextMatching, EvaluationRecipe, ReRanking
from tests.personsearch_core.evaluation.oracles import PrwOracle
from tests.personsearch_core.evaluation.test_properties import SEEDS, UNHURRIED, Problem, problem

VARIED: dict[str, Any] = {"boxes_per_image": (1.0, 2.0), "per_image_top_k": (1,)}


def inputs_of(p: Problem) -> EvaluationInputs:
    rng = np.random.default_rng(0)
    described = rng.integers(-2, 3, (len(p.truth), p.queries.embeddings.shape[1])).astype(np.float32)
    protocols = {name: SearchProtocol(p.queries, p.lists) for name in ("prw", "TestG50", "TestG100")}
    return EvaluationInputs(p.detections, len(p.cameras), protocols, p.truth, described, p.cameras)


def prw_inputs(prw: PrwOracle) -> EvaluationInputs:
    protocols = {"prw": SearchProtocol(prw.queries)}
    return EvaluationInputs(prw.detections, len(prw.cameras), protocols, prw.truth, cameras=prw.cameras)


def recipe_of(protocol: str, n_detections: int, **fields: Any) -> EvaluationRecipe:
    """All that the protocol varies; budgets of boxes only where there are detections to choose among."""
    varied = VARIED if n_detections else {}
    if protocol != "zheng2017":
        varied = varied | {
            "re_ranking": ReRanking(k1=2, k2=2),
            "context_matching": ContextMatching(k1=2, k2=2),
        }
    return EvaluationRecipe(protocol=protocol, ground_truth_boxes=True, **varied, **fields)  # type: ignore[arg-type]


def assert_each_as_alone(recipe: EvaluationRecipe, inputs: EvaluationInputs) -> EvaluationResults:
    together = evaluate(recipe, inputs, keep_best=3)
    for setting, found in zip(settings_of(recipe), together.searches, strict=True):
        (alone,) = evaluate(recipe, inputs, settings=[setting], detection_at=None).searches
        assert found.setting == setting and found.result.score_threshold == alone.result.score_threshold
        np.testing.assert_array_equal(found.result.ap, alone.result.ap)
        np.testing.assert_array_equal(found.result.rank, alone.result.rank)
        assert found.result.metrics() == alone.result.metrics()
    return together


@given(SEEDS, st.sampled_from(["prw", "zheng2017"]))
@UNHURRIED
def test_settings_have_the_numbers_that_they_have_alone(seed: int, protocol: str) -> None:
    p = problem(seed)
    together = assert_each_as_alone(recipe_of(protocol, len(p.detections)), inputs_of(p))
    by_name = {found.setting.name: found.result for found in together.searches}
    arguments = p.detections, p.queries, p.truth, p.cameras
    single = search_prw if protocol == "prw" else search_zheng2017
    np.testing.assert_array_equal(by_name[protocol].ap, single(*arguments).ap)  # type: ignore[operator]
    if len(p.detections):
        threshold = score_threshold_for(p.detections.scores, len(p.cameras), 2)
        expected = single(*arguments, score_threshold=threshold)  # type: ignore[operator]
        np.testing.assert_array_equal(by_name[f"{protocol}, 2 boxes an image"].ap, expected.ap)


@given(SEEDS)
@UNHURRIED
def test_search_across_cameras_and_in_lists_too(seed: int) -> None:
    p = problem(seed)
    assert_each_as_alone(recipe_of("prw", len(p.detections), cross_camera=True), inputs_of(p))
    sizes = recipe_of("cuhk_sysu", len(p.detections), gallery_sizes=("50", "100", "full"))
    together = assert_each_as_alone(sizes, inputs_of(p))
    for found, full in zip(together.searches, (False, False, True), strict=False):
        expected = search_lists(p.detections, p.queries, p.lists, full_gallery=full)
        np.testing.assert_array_equal(found.result.ap, expected.ap)


def test_the_best_boxes_of_each_image_are_chosen_after_all_are_labelled(prw: PrwOracle) -> None:
    recipe = EvaluationRecipe(protocol="zheng2017", per_image_top_k=(1,))
    found = evaluate(recipe, prw_inputs(prw), detection_at=None).searches[1]
    is_best = np.zeros(len(prw.detections), np.float32)
    is_best[top_k_of_each_image(prw.detections, 1)] = 1
    marked = replace(prw.detections, scores=is_best)
    expected = search_zheng2017(marked, prw.queries, prw.truth, prw.cameras, score_threshold=0.5)
    np.testing.assert_array_equal(found.result.ap, expected.ap)


def test_what_settings_share_is_multiplied_once(prw: PrwOracle) -> None:
    """All rankings of one pool of detections are one piece of work; ground-truth boxes are another."""
    bundles = []

    def counted(rank: Any, jobs: Sequence[Any], blocks: Sequence[range]) -> Any:
        bundles.append(len(jobs))
        return serially(rank, tuple(jobs), blocks)

    described = np.eye(len(prw.truth), prw.queries.embeddings.shape[1], dtype=np.float32)
    inputs = replace(prw_inputs(prw), truth_embeddings=described)
    recipe = EvaluationRecipe(boxes_per_image=(1, 2, 3), per_image_top_k=(2,), ground_truth_boxes=True)
    done: list[tuple[int, int]] = []
    evaluate(recipe, inputs, map_blocks=counted, progress=lambda *step: done.append(step))
    assert bundles == [1, 1]
    assert done == [(1, 2), (2, 2)]


def test_detection_is_counted_by_both_rules_in_one_go(prw: PrwOracle) -> None:
    results = evaluate(EvaluationRecipe(), prw_inputs(prw), settings=(), detection_at=0.01)
    assert results.searches == ()
    assert results.detection == evaluate_detection(
        prw.detections, prw.truth, len(prw.cameras), score_threshold=0.01
    )
    higher = evaluate(EvaluationRecipe(), prw_inputs(prw), settings=(), detection_at=0.9).detection
    assert higher is not None and results.detection is not None
    assert higher.recall < results.detection.recall
    assert (higher.coco_ap50, higher.coco_ap) == (results.detection.coco_ap50, results.detection.coco_ap)


def test_the_best_matches_are_the_most_similar_ones(prw: PrwOracle) -> None:
    recipe = EvaluationRecipe(score_threshold=0.8)
    results = evaluate(recipe, prw_inputs(prw), keep_best=4, detection_at=None)
    matches, (found,) = results.matches, results.searches
    assert matches is not None
    kept = prw.detections.scores >= 0.8
    for query in (0, 40, 165):
        shown = np.flatnonzero(kept & (prw.detections.image != prw.queries.image[query]))
        similarity = prw.detections.embeddings[shown] @ prw.queries.embeddings[query]
        rows = matches.query == query
        assert matches.rank[rows].tolist() == [1, 2, 3, 4]
        assert matches.similarity[rows].tolist() == sorted(similarity.tolist(), reverse=True)[:4]
    first = matches.rank == 1
    ambiguous = found.result.is_ambiguous((1,))  # type: ignore[union-attr]
    assert (matches.is_right[first] == found.result.hits(1))[~ambiguous].mean() > 0.99


def test_no_match_is_right_where_no_box_has_a_person() -> None:
    """As where every box is lower than the view's smallest height."""
    boxes = np.array([[0, 0, 40, 100], [50, 0, 90, 100]], np.float32)
    unlabelled = GroundTruth(np.array([0, 1]), boxes, np.full(2, UNLABELLED))
    strangers = np.array([-2, -2])
    assert shows_person(unlabelled, np.array([0, 1]), boxes, strangers).tolist() == [False, False]


def test_the_best_number_of_boxes_is_named(prw: PrwOracle) -> None:
    inputs = prw_inputs(prw)
    swept = evaluate(EvaluationRecipe(boxes_per_image=(10, 1, 3)), inputs, detection_at=None)
    best = swept.best_boxes_per_image()
    assert best is not None
    budget, found = best
    assert found.result.mean_ap == max(each.result.mean_ap for each in swept.searches[1:])
    assert found.setting.boxes_per_image == budget
    assert evaluate(EvaluationRecipe(), inputs, detection_at=None).best_boxes_per_image() is None


def test_intervals_are_those_of_the_recipe(prw: PrwOracle) -> None:
    (found,) = evaluate(EvaluationRecipe(bootstrap_samples=200, seed=3), prw_inputs(prw)).searches
    for name, interval in found.intervals.items():
        assert interval.low < found.result.metrics()[name] < interval.high
    assert set(found.intervals) == {"mAP", "rank1"}
    assert evaluate(EvaluationRecipe(), prw_inputs(prw)).searches[0].intervals == {}


def test_what_a_protocol_lacks_is_named(prw: PrwOracle) -> None:
    inputs = prw_inputs(prw)
    across = EvaluationRecipe(cross_camera=True)
    listed = EvaluationRecipe(protocol="cuhk_sysu")
    beyond = SearchProtocol(replace(prw.queries, image=prw.queries.image + 612 - prw.queries.image.max()))
    unlisted = {"TestG100": SearchProtocol(prw.queries)}
    for recipe, given_, message in (
        (EvaluationRecipe(), replace(inputs, truth=None), r"protocol prw needs truth, which"),
        (across, replace(inputs, cameras=None), r"across cameras needs cameras"),
        (EvaluationRecipe(ground_truth_boxes=True), inputs, r"injection needs truth_embeddings"),
        (listed, inputs, r"no protocol 'TestG100'; they have: prw"),
        (listed, replace(inputs, protocols=unlisted), r"TestG100 has no gallery lists"),
        (
            EvaluationRecipe(),
            replace(inputs, protocols={"prw": beyond}),
            r"queries of prw: image 612 is outside",
        ),
    ):
        with pytest.raises(PersonSearchError, match=message):
            evaluate(recipe, given_)
    with pytest.raises(PersonSearchError, match=r"ground truth: image \d+ is outside the 9 images"):
        EvaluationInputs(prw.detections.select(slice(0, 3)), 9, truth=prw.truth)  # type: ignore[arg-type]
    with pytest.raises(PersonSearchError, match=r"cameras has 611 rows, but should have 612"):
        replace(inputs, cameras=prw.cameras[1:])
    with pytest.raises(PersonSearchError, match=r"truth_embeddings has 1 rows"):
        replace(inputs, truth_embeddings=np.zeros((1, 4), np.float32))


def test_a_search_that_needs_no_cameras_goes_without(prw: PrwOracle) -> None:
    without = evaluate(EvaluationRecipe(), replace(prw_inputs(prw), cameras=None), detection_at=None)
    with_them = evaluate(EvaluationRecipe(), prw_inputs(prw), detection_at=None)
    assert without.searches[0].result.metrics() == with_them.searches[0].result.metrics()


def test_settings_of_a_recipe_are_named_by_what_they_vary() -> None:
    recipe = EvaluationRecipe(boxes_per_image=(2.5,), per_image_top_k=(3,), re_ranking=ReRanking())
    names = [setting.name for setting in settings_of(recipe)]
    assert names == ["prw", "prw, 2.5 boxes an image", "prw, best 3 boxes of each image", "prw, re-ranked"]
    sizes = settings_of(EvaluationRecipe(protocol="cuhk_sysu", gallery_sizes=("100", "full")))
    assert sizes[1] == Setting("gallery full", "TestG50", 0.5, full_gallery=True)


def test_without_detections_only_ground_truth_boxes_are_ranked() -> None:
    (setting,) = settings_of(EvaluationRecipe(ground_truth_boxes="only"))
    assert setting.ground_truth_boxes and setting.name == "prw, ground-truth boxes"
    with pytest.raises(ValueError, match="boxes_per_image is for detections"):
        EvaluationRecipe(ground_truth_boxes="only", boxes_per_image=(3,))
