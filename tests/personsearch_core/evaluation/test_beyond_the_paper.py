"""Re-ranking, context matching, several shots, breakdowns: against literal versions of their definitions."""

from __future__ import annotations

from functools import partial
from itertools import permutations
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.searches import NAME, prw_inputs, search_prw
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.boxes_per_image import (
    best_budget,
    score_threshold_for,
    top_k_of_each_image,
)
from personsearch_core.evaluation.breakdown import by_camera_pair, by_class, by_crowdedness, by_query_height
from personsearch_core.evaluation.comparison import bootstrap_interval, compare_runs
from personsearch_core.evaluation.multi_shot import pool_shots
from personsearch_core.evaluation.rankings import tasks_of
from personsearch_core.evaluation.records import Detections, Queries
from personsearch_core.evaluation.rerank import k_reciprocal_distances
from personsearch_core.evaluation.search import SearchTask
from personsearch_core.evaluation.settings import Setting
from personsearch_core.evaluation.similarities import similarities
from personsearch_core.recipes import ContextMatching, EvaluationRecipe, ReRanking
from tests.personsearch_core.evaluation.oracles import PrwOracle
from tests.personsearch_core.evaluation.test_properties import problem


def literal_k_reciprocal(members: np.ndarray, k1: int, k2: int, weight: float) -> np.ndarray:
    """Zhong et al. 2017, sections 3.2 to 3.4, set by set."""
    distances = ((members[:, None] - members) ** 2).sum(axis=2)
    distances = distances / distances.max(axis=1, keepdims=True)
    order = np.argsort(distances, axis=1, kind="stable")

    def reciprocal(i: int, k: int) -> set[int]:
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    vectors = np.zeros_like(distances)
    for i in range(len(members)):
        expanded = set(reciprocal(i, k1))
        for j in reciprocal(i, k1):
            half = reciprocal(j, round(k1 / 2))
            if len(half & reciprocal(i, k1)) > 2 / 3 * len(half):
                expanded |= half
        index = sorted(expanded)
        vectors[i, index] = np.exp(-distances[i, index])
        vectors[i] /= vectors[i].sum()
    vectors = np.stack([vectors[order[i, :k2]].mean(axis=0) for i in range(len(members))])
    jaccard = [1 - np.minimum(vectors[0], v).sum() / np.maximum(vectors[0], v).sum() for v in vectors[1:]]
    return (1 - weight) * np.array(jaccard) + weight * distances[0, 1:]


@pytest.mark.parametrize("k1, k2", [(20, 6), (5, 2), (3, 1)])
def test_k_reciprocal_distances_follow_their_definition(k1: int, k2: int) -> None:
    members = np.random.default_rng(0).standard_normal((40, 8))
    members /= np.linalg.norm(members, axis=1, keepdims=True)
    expected = literal_k_reciprocal(members, k1, k2, 0.3)
    np.testing.assert_allclose(k_reciprocal_distances(members, k1, k2, 0.3), expected, atol=1e-10)


def test_re_ranking_by_the_original_distance_alone_changes_nothing(prw: PrwOracle) -> None:
    standard, same = (
        search_prw(prw.detections, prw.queries, prw.truth, prw.cameras, rescore=rescore)
        for rescore in (None, ReRanking(weight=1.0, depth=50))
    )
    assert same.top(1) == standard.top(1)
    assert same.mean_ap == pytest.approx(standard.mean_ap, abs=0.02)  # rounding parts some ties


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4), st.sampled_from(["max", "sum"]))
@settings(deadline=None, max_examples=80)
def test_context_matching_lifts_the_querys_match(
    seed: int, k1: int, k2: int, lift: Literal["max", "sum"]
) -> None:
    """By the sum, to the best total; by the maximum, to the best pair of the matching with that total."""
    p = problem(seed)
    rng = np.random.default_rng(seed)
    shape = (len(p.detections), 4)
    detections = Detections(
        p.detections.image, p.detections.boxes, p.detections.scores, rng.standard_normal(shape, np.float32)
    )
    queries = Queries(
        p.queries.image,
        p.queries.boxes,
        rng.standard_normal((len(p.queries), 4), np.float32),
        p.queries.person_id,
    )
    inputs = prw_inputs(detections, queries, p.truth, p.cameras)
    settings_ = [Setting(NAME, NAME, rescore=ContextMatching(k1=k1, k2=k2, lift=lift))]
    task = tasks_of(EvaluationRecipe(), inputs, settings_)[0]
    assert isinstance(task, SearchTask)
    matching = task.rescore
    assert isinstance(matching, partial)
    _, contexts, _ = matching.args
    everyone = range(len(queries))
    products = queries.embeddings @ task.gallery.embeddings.T
    for query, (index, values) in zip(everyone, similarities(task, everyone, iter(products)), strict=True):
        lifted = matching(query, index, values)
        context = contexts[query]
        assert len(context) <= k2
        expected = values.copy()
        nearest = np.argsort(-values, kind="stable")[:k1]
        for image in set(task.gallery.image[index[nearest]].tolist()):
            place = np.flatnonzero(task.gallery.image[index] == image)
            pairs, match = best_matching(context @ task.gallery.embeddings[index[place]].T)
            if match is not None:
                expected[place[match]] = pairs.sum() if lift == "sum" else pairs.max()
        np.testing.assert_allclose(lifted, expected, rtol=1e-4, atol=1e-5)


def best_matching(weights: np.ndarray) -> tuple[np.ndarray, int | None]:
    """Weights of the best matching of the smaller side, and row 0's column in it, by trying all."""
    rows, columns = weights.shape
    if rows <= columns:
        choices = [(list(range(rows)), list(c)) for c in permutations(range(columns), rows)]
    else:
        choices = [(list(r), list(range(columns))) for r in permutations(range(rows), columns)]
    totals = [weights[r, c].sum() for r, c in choices]
    row, column = choices[int(np.argmax(totals))]
    return weights[row, column], column[row.index(0)] if 0 in row else None


def test_context_matching_by_default_lifts_as_seqnets_code_does(prw: PrwOracle) -> None:
    default, code, paper = (
        search_prw(prw.detections, prw.queries, prw.truth, prw.cameras, rescore=rescore).mean_ap
        for rescore in (ContextMatching(), ContextMatching(lift="max"), ContextMatching(lift="sum"))
    )
    assert default == code != paper


def test_context_matching_alone_with_the_query_changes_nothing(prw: PrwOracle) -> None:
    best_of_each_image, standard = (
        search_prw(prw.detections, prw.queries, prw.truth, prw.cameras, rescore=rescore)
        for rescore in (ContextMatching(k1=30, k2=1), None)
    )
    np.testing.assert_array_equal(best_of_each_image.ap, standard.ap)


def test_shots_are_averaged_and_their_frames_hidden(prw: PrwOracle) -> None:
    pooled, hidden = pool_shots(prw.queries)
    people = prw.queries.person_ids()
    query = int(np.flatnonzero(people == np.bincount(people).argmax())[0])
    shots = np.flatnonzero(people == people[query])
    assert len(shots) > 1
    assert sorted(hidden.of(query).tolist()) == sorted(prw.queries.image[shots].tolist())
    mean = prw.queries.embeddings[shots].mean(axis=0)
    np.testing.assert_allclose(pooled.embeddings[query], mean / np.linalg.norm(mean), atol=1e-6)
    result = search_prw(prw.detections, prw.queries, prw.truth, prw.cameras, multi_shot=True)
    single = search_prw(prw.detections, prw.queries, prw.truth, prw.cameras)
    assert result.n_truths[query] == single.n_truths[query] - (len(set(prw.queries.image[shots])) - 1)


def test_parts_cover_all_queries(prw: PrwOracle) -> None:
    result = search_prw(prw.detections, prw.queries, prw.truth, prw.cameras)
    in_image = np.bincount(prw.truth.image, minlength=len(prw.cameras))
    for parts in (by_query_height(result, prw.queries), by_crowdedness(result, prw.queries, in_image)):
        assert sum(part.queries for part in parts) == len(result)
        weighted = sum(part.mean_ap * part.queries for part in parts) / len(result)
        assert weighted == pytest.approx(result.mean_ap)
    first, last = by_class(result, np.where(np.arange(len(result)) == 0, 5, 10), (0, 10))
    assert (first.name, first.queries, last.name, last.queries) == ("0-10", 1, ">=10", len(result) - 1)


def test_camera_pairs_search_one_cameras_frames(prw: PrwOracle) -> None:
    inputs = prw_inputs(prw.detections, prw.queries, prw.truth, prw.cameras)
    parts = {part.name: part for part in by_camera_pair(inputs, Setting(NAME, NAME))}
    assert len(parts) == 36
    shown = prw.cameras == 2
    result = search_prw(
        prw.detections.select(shown[prw.detections.image]),
        prw.queries,
        prw.truth.select(shown[prw.truth.image]),
        prw.cameras,
    )
    members = (prw.cameras[prw.queries.image] == 1) & (result.n_truths > 0)
    assert parts["1 -> 2"].mean_ap == pytest.approx(result.ap[members].mean())


def test_injected_ground_truth_is_found_but_for_its_features(prw: PrwOracle) -> None:
    people = np.unique(prw.truth.person_id)
    one_hot = np.eye(len(people), dtype=np.float32)
    injected = prw.truth.as_detections(one_hot[np.searchsorted(people, prw.truth.person_id)])
    assert set(injected.scores.tolist()) == {1.0}
    known = one_hot[np.searchsorted(people, prw.queries.person_ids())]
    queries = Queries(prw.queries.image, prw.queries.boxes, known, prw.queries.person_id)
    result = search_prw(injected, queries, prw.truth, prw.cameras)
    assert (result.recall == 1).all() and result.top(1) == 1.0


def test_budgets_of_boxes() -> None:
    image = np.array([0, 0, 0, 1])
    scores = np.array([0.9, 0.7, 0.7, 0.1], np.float32)
    detections = Detections(image, np.zeros((4, 4), np.float32), scores, np.zeros((4, 0), np.float32))
    assert score_threshold_for(scores, n_images=2, boxes_per_image=1) == np.float32(0.7)
    assert score_threshold_for(scores, n_images=2, boxes_per_image=50) == np.float32(0.1)
    assert top_k_of_each_image(detections, 2).tolist() == [0, 1, 3]
    with pytest.raises(PersonSearchError, match="less than one box"):
        score_threshold_for(scores, 2, 0.1)
    with pytest.raises(PersonSearchError, match="boxes per image are too many"):
        score_threshold_for(scores, 2, 1e308)
    assert top_k_of_each_image(detections, int(1e308)).tolist() == [0, 1, 2, 3]
    with pytest.raises(PersonSearchError, match="no detections"):
        score_threshold_for(scores[:0], 2, 1)
    with pytest.raises(PersonSearchError, match="at least 1"):
        top_k_of_each_image(detections, 0)


def test_of_equally_good_budgets_the_smallest_is_the_best() -> None:
    assert best_budget({5: 0.2, 1: 0.1, 3: 0.4, 2: 0.4}) == 2


def test_bootstrap_covers_the_mean_and_narrows_with_queries() -> None:
    values = np.random.default_rng(0).random(400)
    wide = bootstrap_interval(values[:50], np.random.default_rng(1))
    narrow = bootstrap_interval(values, np.random.default_rng(1))
    assert narrow.low < narrow.mean < narrow.high
    assert narrow.high - narrow.low < wide.high - wide.low
    # The standard error of 400 uniform values is 0.0144; 95% is 1.96 of it on each side.
    assert narrow.high - narrow.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert narrow == bootstrap_interval(values, np.random.default_rng(1))


def test_comparison_tells_a_shift_from_noise() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(300)
    noise = rng.normal(0, 0.05, 300)
    better = compare_runs(first, first + 0.02 + noise, np.random.default_rng(1))
    assert better.p_value < 0.01 and better.difference.low > 0
    level = compare_runs(first, first + noise - noise.mean(), np.random.default_rng(1))
    assert level.p_value > 0.9
    assert better.n_better + better.n_worse + better.n_equal == 300
    gains = (noise + 0.02)[better.order]
    assert (np.diff(gains) <= 1e-12).all()
    same = compare_runs(first, first, np.random.default_rng(1))
    assert (same.p_value, same.n_equal) == (1.0, 300)
    with pytest.raises(PersonSearchError, match="300 and 299"):
        compare_runs(first, first[1:], rng)
