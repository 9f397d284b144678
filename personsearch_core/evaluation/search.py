"""Ranks every query's gallery in blocks of queries: bounded memory, and results independent of the workers.

Blocks depend only on the sizes of the task, so any number of workers computes the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from personsearch_core.evaluation.matching import GroupedDetections, matching_detections
from personsearch_core.evaluation.parallel import Job, Products
from personsearch_core.evaluation.ranking import (
    FoundTruths,
    SearchResult,
    count_at_least,
    count_positives_at_least,
    rank_result,
)
from personsearch_core.evaluation.records import FloatArray, IntArray, Queries
from personsearch_core.evaluation.similarities import Ranked, listed_bytes, rank_queries
from personsearch_core.evaluation.task import QueryTruths, Rescore, Scope

Best = tuple[IntArray, FloatArray]
"""A query's most similar detections (indices into the grouped ones) and similarities, best first."""


@dataclass(frozen=True, eq=False)
class BlockCounts:
    """Outcome of a block of queries: found truths, two counts (b,), and the best matches kept."""

    found: FoundTruths
    n_gallery: IntArray
    n_above_best: IntArray
    best: list[Best]


@dataclass(frozen=True, eq=False)
class SearchTask:
    """Everything that a ranking needs; can be pickled if `rescore` can.

    The `keep_best` most similar detections of each query are kept.
    """

    queries: Queries
    gallery: GroupedDetections
    scope: Scope
    truths: QueryTruths
    rescore: Rescore | None = None
    keep_best: int = 0
    score_threshold: float | None = None
    """The lowest score of what is ranked; None = any."""

    def job(self) -> Job:
        """The ranking, as a job for workers."""
        gallery, rank = self.gallery, partial(rank_block, self)
        return Job(self.queries.embeddings, gallery.pool, gallery.column, rank, listed_bytes(self))

    def result(self, blocks: Sequence[BlockCounts]) -> SearchResult:
        """Combine the blocks."""
        found = FoundTruths(
            *(
                np.concatenate([getattr(block.found, name) for block in blocks])
                for name in FoundTruths.__dataclass_fields__
            )
        )
        return rank_result(
            found,
            self.truths.count,
            np.concatenate([block.n_gallery for block in blocks]),
            np.concatenate([block.n_above_best for block in blocks]),
            self.score_threshold,
        )


def rank_block(task: SearchTask, block: range, products: Products | None) -> BlockCounts:
    """Rank the queries of one block; `products` as in `rank_queries`."""
    truth, pair_starts, candidate = matched_truths(task.gallery, task.truths, block)
    truth_stops = np.searchsorted(truth, task.truths.offsets[block.start : block.stop + 1])
    pair_stops = np.append(pair_starts, len(candidate))

    candidate_similarity = np.empty(len(candidate), np.float32)
    similarity = np.empty(len(truth), np.float32)
    at_least = np.empty(len(truth), np.int64)
    n_above_best = np.zeros(len(block), np.int64)
    n_gallery = np.empty(len(block), np.int64)
    best: list[Best] = []
    for i, ranked in enumerate(rank_queries(task, block, products)):
        n_gallery[i] = ranked.n_ranked
        if task.keep_best:
            best.append(_best(ranked, task.keep_best))
        first, last = truth_stops[i], truth_stops[i + 1]
        if first == last:
            continue
        pairs = slice(pair_stops[first], pair_stops[last])
        candidate_similarity[pairs] = ranked.by_detection[candidate[pairs]]
        positives = np.maximum.reduceat(candidate_similarity[pairs], pair_starts[first:last] - pairs.start)
        similarity[first:last] = positives
        at_least[first:last] = count_at_least(ranked.values, positives)
        n_above_best[i] = np.count_nonzero(ranked.values > positives.max())

    query = np.repeat(np.arange(block.start, block.stop), np.diff(truth_stops))
    chosen = first_maximum(candidate_similarity, similarity, pair_starts)
    found = FoundTruths(
        query=query,
        truth=truth,
        detection=task.gallery.row[candidate[chosen]],
        similarity=similarity,
        at_least=at_least,
        positives=count_positives_at_least(query, similarity),
    )
    return BlockCounts(found, n_gallery, n_above_best, best)


def matched_truths(
    gallery: GroupedDetections, truths: QueryTruths, block: range
) -> tuple[IntArray, IntArray, IntArray]:
    """The ground truths of a block's queries that detections match, and these detections.

    Returns the truths (t,), and of the detections (d,), truth by truth, the first of each (t,) and all.
    """
    first, last = truths.offsets[block.start], truths.offsets[block.stop]
    truth, detection = matching_detections(gallery, truths.image[first:last], truths.boxes[first:last])
    starts = np.flatnonzero(np.diff(truth, prepend=-1))
    return truth[starts] + first, starts, detection


def _best(ranked: Ranked, count: int) -> Best:
    """The `count` most similar detections (the first among equals) and their similarities."""
    count = min(count, ranked.n_ranked)
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    level = np.partition(ranked.values, len(ranked.values) - count)[len(ranked.values) - count]
    head = np.flatnonzero(ranked.values >= level)
    head = head[np.argsort(-ranked.values[head], kind="stable")[:count]]
    return head if ranked.detections is None else ranked.detections[head], ranked.values[head]


def first_maximum(values: FloatArray, maxima: FloatArray, starts: IntArray) -> IntArray:
    """Per segment, the index of the first value that equals its maximum."""
    lengths = np.diff(starts, append=len(values))
    at_maximum = np.flatnonzero(values == np.repeat(maxima, lengths))
    return at_maximum[np.searchsorted(at_maximum, starts)]
