"""What must hold for every search problem, on small random ones whose dot products are exact."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plain_evaluation import plain_cuhk_sysu, plain_prw
from benchmarks.searches import search_lists, search_prw, search_zheng2017
from personsearch_core.evaluation import parallel, similarities
from personsearch_core.evaluation.detection import person_search_detection
from personsearch_core.evaluation.prw import search_boxes
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.records import Detections, GalleryLists, GroundTruth, IntArray, Queries
from personsearch_core.identities import UNLABELLED

SEEDS = st.integers(0, 2**32 - 1)
UNHURRIED = settings(deadline=None, max_examples=60)


@dataclass(frozen=True, eq=False)
class Problem:
    detections: Detections
    queries: Queries
    truth: GroundTruth
    cameras: IntArray
    lists: GalleryLists


def embeddings(rng: np.random.Generator, n: int) -> np.ndarray:
    """Few small integers: dot products are exact, and ties are frequent."""
    return rng.integers(-2, 3, (n, 3)).astype(np.float32)


def problem(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    n_images, n_truths = int(rng.integers(2, 9)), int(rng.integers(1, 25))
    cameras = rng.integers(1, 4, n_images)
    corner, size = rng.integers(-5, 60, (n_truths, 2)), rng.integers(5, 40, (n_truths, 2))
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    person = rng.integers(UNLABELLED, 4, n_truths)
    person[0] = 0
    truth = GroundTruth(rng.integers(0, n_images, n_truths), boxes, person)
    near = rng.integers(0, n_truths, int(rng.integers(0, 40)))
    detections = Detections(
        np.where(rng.random(len(near)) < 0.8, truth.image[near], rng.integers(0, n_images, len(near))),
        boxes[near] + rng.integers(-3, 4, (len(near), 4)).astype(np.float32),
        rng.integers(0, 5, len(near)).astype(np.float32) / 4,
        embeddings(rng, len(near)),
    )
    labelled = np.flatnonzero(person != UNLABELLED)
    asked = rng.choice(labelled, int(rng.integers(1, 6)))
    queries = Queries(truth.image[asked], boxes[asked], embeddings(rng, len(asked)), person[asked])
    return Problem(detections, queries, truth, cameras, lists_of(rng, queries, n_images))


def lists_of(rng: np.random.Generator, queries: Queries, n_images: int) -> GalleryLists:
    """A random list for each query, repeats among them, some entries positive."""
    lengths = rng.integers(1, 2 * n_images, len(queries))
    n_rows = int(lengths.sum())
    is_positive = rng.random(n_rows) < 0.4
    corner, size = rng.integers(0, 60, (n_rows, 2)), rng.integers(5, 40, (n_rows, 2))
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float64)
    image = rng.integers(0, n_images, n_rows)
    order = np.lexsort((~is_positive, np.repeat(np.arange(len(lengths)), lengths)))
    return GalleryLists(np.append(0, np.cumsum(lengths)), image[order], is_positive[order], boxes[order])


def prw_search(p: Problem, cross_camera: bool) -> SearchResult:
    return search_prw(p.detections, p.queries, p.truth, p.cameras, cross_camera=cross_camera)


def same(a: SearchResult, b: SearchResult, order: IntArray | None = None) -> None:
    order = np.arange(len(a)) if order is None else order
    np.testing.assert_allclose(a.ap[order], b.ap, atol=1e-12)
    for name in ("rank", "lucky_rank", "recall", "inp", "n_gallery", "n_truths"):
        np.testing.assert_array_equal(getattr(a, name)[order], getattr(b, name))


@given(SEEDS, st.booleans())
@UNHURRIED
def test_prw_equals_the_plain_implementation(seed: int, cross_camera: bool) -> None:
    p = problem(seed)
    result = prw_search(p, cross_camera)
    plain = plain_prw(p.detections, p.queries, p.truth, p.cameras, cross_camera=cross_camera)
    np.testing.assert_allclose(result.ap, [ap for ap, _ in plain], atol=1e-12)
    assert result.rank.tolist() == [rank for _, rank in plain]


@given(SEEDS, st.booleans())
@UNHURRIED
def test_cuhk_sysu_equals_the_plain_implementation(seed: int, long_lists: bool) -> None:
    p = problem(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarities, "_LONG_LIST", 0.0 if long_lists else 100.0)
        result = search_lists(p.detections, p.queries, p.lists)
    plain = plain_cuhk_sysu(p.detections, p.queries, p.lists)
    np.testing.assert_allclose(result.ap, [ap for ap, _ in plain], atol=1e-12)
    assert result.rank.tolist() == [rank for _, rank in plain]


@given(SEEDS, st.booleans())
@UNHURRIED
def test_order_of_detections_and_queries_changes_nothing(seed: int, cross_camera: bool) -> None:
    p, rng = problem(seed), np.random.default_rng(seed)
    detections = rng.permutation(len(p.detections))
    queries = rng.permutation(len(p.queries))
    shuffled = replace(
        p, detections=p.detections.select(detections), queries=select_queries(p.queries, queries)
    )
    same(prw_search(p, cross_camera), prw_search(shuffled, cross_camera), queries)
    lists = lists_in_order(p.lists, queries)
    same(
        search_lists(p.detections, p.queries, p.lists),
        search_lists(shuffled.detections, shuffled.queries, lists),
        queries,
    )


@given(SEEDS, st.booleans())
@UNHURRIED
def test_numbering_of_images_changes_nothing(seed: int, cross_camera: bool) -> None:
    p, rng = problem(seed), np.random.default_rng(seed)
    new = rng.permutation(len(p.cameras))
    cameras = np.empty_like(p.cameras)
    cameras[new] = p.cameras
    renamed = Problem(
        replace(p.detections, image=new[p.detections.image]),
        replace(p.queries, image=new[p.queries.image]),
        replace(p.truth, image=new[p.truth.image]),
        cameras,
        replace(p.lists, image=new[p.lists.image]),
    )
    same(prw_search(p, cross_camera), prw_search(renamed, cross_camera))
    same(
        search_lists(p.detections, p.queries, p.lists),
        search_lists(renamed.detections, renamed.queries, renamed.lists),
    )
    assert person_search_detection(p.detections, p.truth, len(new)) == pytest.approx(
        person_search_detection(renamed.detections, renamed.truth, len(new)), abs=1e-12
    )


@given(SEEDS)
@UNHURRIED
def test_detections_below_the_threshold_change_nothing(seed: int) -> None:
    p, rng = problem(seed), np.random.default_rng(seed)
    extra = 5
    more = Detections(
        np.append(p.detections.image, rng.integers(0, len(p.cameras), extra)),
        np.concatenate([p.detections.boxes, np.tile(p.queries.boxes[:1], (extra, 1))]),
        np.append(p.detections.scores, np.full(extra, 0.4999, np.float32)),
        np.concatenate([p.detections.embeddings, np.tile(p.queries.embeddings[:1], (extra, 1))]),
    )
    same(prw_search(p, False), prw_search(replace(p, detections=more), False))
    same(
        search_lists(p.detections, p.queries, p.lists),
        search_lists(more, p.queries, p.lists),
    )


@given(SEEDS)
@UNHURRIED
def test_perfect_features_and_one_detection_a_person_give_recall(seed: int) -> None:
    p, rng = problem(seed), np.random.default_rng(seed)
    first = np.unique(np.stack([p.truth.image, p.truth.person_id]), axis=1, return_index=True)[1]
    first = first[p.truth.person_id[first] != UNLABELLED]
    people = p.truth.select(first)
    # Apart, so that no detection matches two people.
    boxes = (
        np.tile(np.array([0, 0, 20, 20], np.float32), (len(people), 1))
        + 100.0 * np.arange(len(people))[:, None]
    )
    people = replace(people, boxes=boxes.astype(np.float32))
    one_hot = np.eye(4, dtype=np.float32)
    found = people.as_detections(one_hot[people.person_id])
    found = found.select(rng.random(len(found)) < 0.7)
    queries = replace(p.queries, embeddings=one_hot[p.queries.person_ids()])
    result = search_prw(found, queries, people, p.cameras)
    np.testing.assert_allclose(result.ap, result.recall, atol=1e-12)


@given(SEEDS, st.booleans())
@UNHURRIED
def test_blocks_of_queries_change_nothing(seed: int, cross_camera: bool) -> None:
    p = problem(seed)
    whole, listed = prw_search(p, cross_camera), search_lists(p.detections, p.queries, p.lists)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "_BLOCK_BYTES", 1)
        same(whole, prw_search(p, cross_camera))
        same(listed, search_lists(p.detections, p.queries, p.lists))


@given(SEEDS)
@UNHURRIED
def test_full_gallery_ranks_every_other_image_once(seed: int) -> None:
    p = problem(seed)
    result = search_lists(p.detections, p.queries, p.lists, full_gallery=True)
    kept = p.detections.image[p.detections.scores >= 0.5]
    for i, image in enumerate(p.queries.image):
        rows = slice(p.lists.offsets[i], p.lists.offsets[i + 1])
        positives = p.lists.image[rows][p.lists.is_positive[rows]]
        others = kept if image in positives else kept[kept != image]
        assert result.n_gallery[i] == len(others)
        assert result.n_truths[i] == len(positives)


@given(SEEDS)
@UNHURRIED
def test_zheng2017_is_bounded_and_ignores_the_order_of_queries(seed: int) -> None:
    p = problem(seed)
    result = search_zheng2017(p.detections, p.queries, p.truth, p.cameras)
    assert ((result.ap >= 0) & (result.ap <= 1)).all()
    order = np.random.default_rng(seed).permutation(len(p.queries))
    shuffled = search_zheng2017(p.detections, select_queries(p.queries, order), p.truth, p.cameras)
    np.testing.assert_array_equal(result.ap[order], shuffled.ap)


def test_search_boxes_keep_their_size_when_clipped() -> None:
    boxes = np.array([[-4.0, 2.5, 6.0, 20.9]], np.float32)
    assert search_boxes(boxes).tolist() == [[0.0, 2.0, 10.0, 20.0]]


def select_queries(queries: Queries, rows: IntArray) -> Queries:
    return Queries(
        queries.image[rows], queries.boxes[rows], queries.embeddings[rows], queries.person_ids()[rows]
    )


def lists_in_order(lists: GalleryLists, queries: IntArray) -> GalleryLists:
    spans = [np.arange(lists.offsets[i], lists.offsets[i + 1]) for i in queries]
    rows = np.concatenate(spans)
    offsets = np.append(0, np.cumsum([len(span) for span in spans]))
    return GalleryLists(offsets, lists.image[rows], lists.is_positive[rows], lists.boxes[rows])
