"""Ranking every query's gallery in blocks of queries: bounded memory, the same answer for any sharing out.

A protocol is stated as data: which images a query's gallery has, and which box each of them should show. The
blocks depend on the sizes of the task alone, so that workers, however many, compute the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.matching import GroupedDetections, expand_ranges, matching_detections
from personsearch_core.evaluation.ranking import (
    FoundTruths,
    SearchResult,
    count_at_least,
    count_positives_at_least,
    rank_result,
)
from personsearch_core.evaluation.records import FloatArray, IntArray

_BLOCK_BYTES = 64 << 20
_LONG_LIST = 0.05
"""Where lists name a larger part of all images, one product with the whole gallery beats gathering rows."""
_NOBODY = -1


class Rescore(Protocol):
    """Replaces similarities before ranking: re-ranking, context matching."""

    def __call__(self, query: int, detections: IntArray, similarities: FloatArray) -> FloatArray:
        """New similarities (n,) to a query of `detections` (n,), indices into the grouped detections."""


@dataclass(frozen=True, eq=False)
class QueryTruths:
    """What each query should find: at most one box in an image.

    Query i's are `offsets[i]:offsets[i + 1]` of `image` and `boxes`; `count` (q,) is its denominator.
    """

    offsets: IntArray
    image: IntArray
    boxes: FloatArray
    count: IntArray


@dataclass(frozen=True, eq=False)
class ListedGallery:
    """Query i ranks the detections of `image[offsets[i]:offsets[i + 1]]`, each image once."""

    offsets: IntArray
    image: IntArray


@dataclass(frozen=True, eq=False)
class HiddenImages:
    """Images that query i must not rank: `image[offsets[i]:offsets[i + 1]]`."""

    offsets: IntArray
    image: IntArray

    def of(self, query: int) -> IntArray:
        return self.image[self.offsets[query] : self.offsets[query + 1]]


@dataclass(frozen=True, eq=False)
class WholeGallery:
    """Each query ranks all detections but those of one group of images, `hidden_group` (q,), -1 = none.

    `also_hidden` takes further images out.
    """

    hidden_group: IntArray
    also_hidden: HiddenImages | None = None


@dataclass(frozen=True, eq=False)
class SearchTask:
    """Everything that a block of queries needs; can be pickled to a worker when `rescore` can."""

    embeddings: FloatArray
    gallery: GroupedDetections
    scope: ListedGallery | WholeGallery
    truths: QueryTruths
    rescore: Rescore | None = None


@dataclass(frozen=True, eq=False)
class BlockCounts:
    """What ranking a block of queries gives: its found truths, and two counts (b,) for each query."""

    found: FoundTruths
    n_gallery: IntArray
    n_above_best: IntArray


MapBlocks = Callable[
    [Callable[[SearchTask, range], BlockCounts], SearchTask, Sequence[range]], Iterable[BlockCounts]
]
"""Applies a function to (task, block) for every block, in order; see `in_threads` and `on_dask`."""


def serially(
    rank: Callable[[SearchTask, range], BlockCounts], task: SearchTask, blocks: Sequence[range]
) -> Iterator[BlockCounts]:
    """One block after the other, in this thread."""
    return (rank(task, block) for block in blocks)


def run_search(
    task: SearchTask, score_threshold: float | None, map_blocks: MapBlocks = serially
) -> SearchResult:
    """Ranks all queries and scores them. Raises PersonSearchError where dimensions do not agree."""
    dimensions = task.embeddings.shape[1], task.gallery.embeddings.shape[1]
    if dimensions[0] != dimensions[1] or not dimensions[0]:
        raise PersonSearchError(
            f"queries have embeddings of {dimensions[0]} numbers, detections of {dimensions[1]}: "
            "both must come from the same model"
        )
    blocks = list(map_blocks(rank_block, task, query_blocks(task)))
    found = FoundTruths(
        *(
            np.concatenate([getattr(block.found, name) for block in blocks])
            for name in FoundTruths.__dataclass_fields__
        )
    )
    return rank_result(
        found,
        task.truths.count,
        np.concatenate([block.n_gallery for block in blocks]),
        np.concatenate([block.n_above_best for block in blocks]),
        score_threshold,
    )


def query_blocks(task: SearchTask) -> list[range]:
    """Consecutive queries whose similarities fit a fixed number of bytes."""
    n_queries = len(task.embeddings)
    size = max(1, _BLOCK_BYTES // (4 * max(1, len(task.gallery))))
    return [range(start, min(start + size, n_queries)) for start in range(0, n_queries, size)]


def rank_block(task: SearchTask, block: range) -> BlockCounts:
    """Ranks the queries of one block."""
    truths, gallery = task.truths, task.gallery
    first_truth, last_truth = truths.offsets[block.start], truths.offsets[block.stop]
    pair_truth, candidate = matching_detections(
        gallery, truths.image[first_truth:last_truth], truths.boxes[first_truth:last_truth]
    )
    pair_starts = np.flatnonzero(np.diff(pair_truth, prepend=_NOBODY))
    truth = pair_truth[pair_starts] + first_truth
    truth_stops = np.searchsorted(truth, truths.offsets[block.start : block.stop + 1])
    pair_stops = np.append(pair_starts, len(candidate))

    candidate_similarity = np.empty(len(candidate), np.float32)
    similarity = np.empty(len(truth), np.float32)
    at_least = np.empty(len(truth), np.int64)
    n_above_best = np.zeros(len(block), np.int64)
    n_gallery = np.empty(len(block), np.int64)
    for i, (ranked, row) in enumerate(_similarities(task, block)):
        n_gallery[i] = len(ranked)
        first, last = truth_stops[i], truth_stops[i + 1]
        if first == last:
            continue
        pairs = slice(pair_stops[first], pair_stops[last])
        candidate_similarity[pairs] = row[candidate[pairs]]
        positives = np.maximum.reduceat(candidate_similarity[pairs], pair_starts[first:last] - pairs.start)
        similarity[first:last] = positives
        at_least[first:last] = count_at_least(ranked, positives)
        n_above_best[i] = np.count_nonzero(ranked > positives.max())

    query = np.repeat(np.arange(block.start, block.stop), np.diff(truth_stops))
    chosen = _first_maximum(candidate_similarity, similarity, pair_starts)
    found = FoundTruths(
        query=query,
        truth=truth,
        detection=gallery.row[candidate[chosen]],
        similarity=similarity,
        at_least=at_least,
        positives=count_positives_at_least(query, similarity),
    )
    return BlockCounts(found, n_gallery, n_above_best)


def _first_maximum(values: FloatArray, maxima: FloatArray, starts: IntArray) -> IntArray:
    """The index of the first value that equals its segment's maximum, for each segment."""
    lengths = np.diff(starts, append=len(values))
    at_maximum = np.flatnonzero(values == np.repeat(maxima, lengths))
    return at_maximum[np.searchsorted(at_maximum, starts)]


def _similarities(task: SearchTask, block: range) -> Iterator[tuple[FloatArray, FloatArray]]:
    """For each query: the similarities that are ranked, and a row that holds them by detection."""
    if task.rescore is not None:
        return _rescored(task, task.rescore, block)
    if isinstance(task.scope, ListedGallery):
        return _listed_similarities(task, task.scope, block)
    return _whole_similarities(task, task.scope, block)


def _listed_similarities(
    task: SearchTask, scope: ListedGallery, block: range
) -> Iterator[tuple[FloatArray, FloatArray]]:
    by_detection = np.empty(len(task.gallery), np.float32)
    for ranked, similarities in _listed_products(task, scope, block):
        by_detection[ranked] = similarities
        yield similarities, by_detection


def _listed_products(
    task: SearchTask, scope: ListedGallery, block: range
) -> Iterator[tuple[IntArray, FloatArray]]:
    """For each query of the block the detections of its listed images, and their similarities."""
    gallery, embeddings = task.gallery, task.gallery.embeddings
    mean_length = len(scope.image) / max(len(task.embeddings), 1)
    products = _products(task, block) if mean_length > _LONG_LIST * len(gallery.image_starts) else None
    for i, query in enumerate(block):
        images = scope.image[scope.offsets[query] : scope.offsets[query + 1]]
        starts = gallery.image_starts[images]
        _, ranked = expand_ranges(starts, gallery.image_stops[images] - starts)
        if products is None:
            yield ranked, embeddings.take(ranked, axis=0) @ task.embeddings[query]
        else:
            yield ranked, products[i, ranked]


def _products(task: SearchTask, block: range) -> FloatArray:
    return task.embeddings[block.start : block.stop] @ task.gallery.embeddings.T


def _whole_similarities(
    task: SearchTask, scope: WholeGallery, block: range
) -> Iterator[tuple[FloatArray, FloatArray]]:
    for query, row in zip(block, _products(task, block), strict=True):
        hidden = _hidden_detections(task.gallery, scope, query)
        row[hidden] = -np.inf
        yield row, row


def _hidden_detections(gallery: GroupedDetections, scope: WholeGallery, query: int) -> IntArray:
    group = scope.hidden_group[query]
    hidden = np.arange(0)
    if group >= 0:
        hidden = np.arange(gallery.group_starts[group], gallery.group_starts[group + 1])
    if scope.also_hidden is None:
        return hidden
    images = scope.also_hidden.of(query)
    starts = gallery.image_starts[images]
    _, further = expand_ranges(starts, gallery.image_stops[images] - starts)
    return np.concatenate([hidden, further])


def _rescored(task: SearchTask, rescore: Rescore, block: range) -> Iterator[tuple[FloatArray, FloatArray]]:
    by_detection = np.empty(len(task.gallery), np.float32)
    for query, (ranked, similarities) in zip(block, ranked_detections(task, block), strict=True):
        new = rescore(query, ranked, similarities).astype(np.float32)
        by_detection[ranked] = new
        yield new, by_detection


def ranked_detections(task: SearchTask, block: range) -> Iterator[tuple[IntArray, FloatArray]]:
    """For each query of the block: its gallery's detections and their similarities, before any rescoring."""
    scope = task.scope
    if isinstance(scope, ListedGallery):
        yield from _listed_products(task, scope, block)
        return
    for query, row in zip(block, _products(task, block), strict=True):
        shown = np.ones(len(row), bool)
        shown[_hidden_detections(task.gallery, scope, query)] = False
        ranked = np.flatnonzero(shown)
        yield ranked, row[ranked]
