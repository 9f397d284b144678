"""Ranking every query's gallery in blocks of queries: bounded memory, the same answer for any sharing out.

The blocks depend on the sizes of the task alone, so that workers, however many, compute the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.matching import matching_detections
from personsearch_core.evaluation.ranking import (
    FoundTruths,
    SearchResult,
    count_at_least,
    count_positives_at_least,
    rank_result,
)
from personsearch_core.evaluation.records import FloatArray, IntArray
from personsearch_core.evaluation.similarities import query_blocks, rank_queries
from personsearch_core.evaluation.task import SearchTask

_NOBODY = -1


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
    for i, ranked in enumerate(rank_queries(task, block)):
        n_gallery[i] = ranked.n_ranked
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
