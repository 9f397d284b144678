"""From ranked similarities to average precision, top-k and CMC, with defined treatment of ties.

Step AP groups equal similarities, as scikit-learn's `average_precision_score` (since 0.19) does: a positive's
precision is taken after all detections that are as similar. In top-k a positive ranks last among its ties.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from personsearch_core.evaluation.records import BoolArray, FloatArray, IntArray

REPORTED_RANKS = (1, 5, 10)
_FEW_POSITIVES = 8
"""Up to this many positives, counting in the whole ranking is faster than filtering it first."""
_MANY_POSITIVES = 128
"""From this many positives on, sorting the rivals is faster than counting per positive."""


def count_at_least(similarities: FloatArray, levels: FloatArray) -> IntArray:
    """Number of `similarities` (n,) that are >= each of `levels` (p,) -> (p,).

    Values below the lowest level are not sorted: only rivals of the weakest positive matter.
    """
    if len(levels) > _FEW_POSITIVES:
        similarities = similarities[similarities >= levels.min()]
    if len(levels) >= _MANY_POSITIVES:
        return len(similarities) - np.searchsorted(np.sort(similarities), levels, side="left")
    outranks = np.empty(len(similarities), bool)
    return np.array(
        [np.count_nonzero(np.greater_equal(similarities, level, out=outranks)) for level in levels], np.int64
    )


@dataclass(frozen=True, eq=False)
class FoundTruths:
    """Ground truths that a detection matched, ordered by query.

    `query`, `truth` (index into the protocol's ground truths), `detection` (row of the input), `similarity`,
    `at_least` (number of gallery detections at least as similar, itself included), `positives` (number of
    positives among them); each (f,).
    """

    query: IntArray
    truth: IntArray
    detection: IntArray
    similarity: FloatArray
    at_least: IntArray
    positives: IntArray


@dataclass(frozen=True, eq=False)
class QueryResults:
    """One protocol's outcome per query; the standard figures are means over all queries.

    `ap` (q,) fractions; `rank` (q,) the 1-based rank of the first positive, 0 if none was found; `n_truths`
    (q,) the number of ground truths in the gallery.
    """

    score_threshold: float | None
    ap: FloatArray
    rank: IntArray
    n_truths: IntArray

    def __len__(self) -> int:
        return len(self.ap)

    @property
    def mean_ap(self) -> float:
        return float(self.ap.mean())

    def hits(self, k: int) -> BoolArray:
        """Whether each query has a positive within the first k -> (q,)."""
        return (self.rank > 0) & (self.rank <= k)

    def top(self, k: int) -> float:
        """The fraction of queries with a positive within the first k."""
        return float(self.hits(k).mean())

    def cmc(self, max_rank: int) -> FloatArray:
        """Cumulative matching characteristic: rank-1 to rank-`max_rank` -> (max_rank,)."""
        first = np.bincount(self.rank[self.hits(max_rank)], minlength=max_rank + 1)
        return np.cumsum(first[1:]) / len(self)

    def metrics(self) -> dict[str, float]:
        """`mAP`, `rank1`, `rank5` and `rank10`, as fractions."""
        return {"mAP": self.mean_ap} | {f"rank{k}": self.top(k) for k in REPORTED_RANKS}


@dataclass(frozen=True, eq=False)
class SearchResult(QueryResults):
    """The outcome if every detection is ranked.

    `recall`, `inp` (q,) fractions; `n_found`, `n_gallery` (q,) numbers of ground truths found and of ranked
    detections. `rank` places a positive last among its ties, `lucky_rank` (q,) first.
    """

    recall: FloatArray
    inp: FloatArray
    n_found: IntArray
    n_gallery: IntArray
    lucky_rank: IntArray
    found: FoundTruths

    @property
    def mean_inp(self) -> float:
        """mINP (Ye et al., TPAMI 2021, section 4), times recall for undetected ground truths."""
        return float(self.inp.mean())

    def is_ambiguous(self, ranks: tuple[int, ...] = REPORTED_RANKS) -> BoolArray:
        """Whether the order of ties would decide one of the given top-k -> (q,)."""
        lucky = (self.lucky_rank[:, None] <= ranks) & (self.lucky_rank[:, None] > 0)
        unlucky = self.rank[:, None] > ranks
        ambiguous: BoolArray = np.any(lucky & unlucky, axis=1)
        return ambiguous

    @property
    def ambiguous(self) -> int:
        return int(self.is_ambiguous().sum())

    @property
    def without_truth(self) -> int:
        """Number of queries without ground truth in their gallery: each counts as AP 0 and a miss."""
        return int((self.n_truths == 0).sum())

    def metrics(self) -> dict[str, float]:
        """`mAP`, `rank1`, `rank5`, `rank10` and `mINP`, as fractions."""
        return super().metrics() | {"mINP": self.mean_inp}

    def per_query(self, query: IntArray | None = None) -> dict[str, FloatArray | IntArray | BoolArray]:
        """Columns of a per-query table; `query` (q,) numbers the queries, by default from 0."""
        hits = {f"hit{k}": self.hits(k) for k in REPORTED_RANKS}
        return {
            "query": np.arange(len(self)) if query is None else query,
            "ap": self.ap,
            **hits,
            "recall": self.recall,
            "inp": self.inp,
            "n_truths": self.n_truths.astype(np.int32),
            "n_found": self.n_found.astype(np.int32),
            "n_gallery": self.n_gallery.astype(np.int32),
            "rank": self.rank.astype(np.int32),
            "ambiguous": self.is_ambiguous(),
        }

    def over_found(self) -> SearchResult:
        """The same ranking with AP as the mean over the ground truths found: not multiplied by recall."""
        return replace(self, ap=step_average_precision(self.found, self.n_found))

    def precision_recall(self, levels: int = 101) -> tuple[FloatArray, FloatArray]:
        """Mean interpolated precision over queries at equidistant recalls -> recall, precision (levels,).

        A query's precision at a recall is the highest at that or any higher recall, 0 past its last positive.
        """
        recalls = np.linspace(0, 1, levels)
        precision = self.found.positives / np.maximum(self.found.at_least, 1)
        reached = self.found.positives / np.maximum(self.n_truths[self.found.query], 1)
        best = np.zeros((len(self), levels))
        level = np.minimum(np.floor(reached * (levels - 1) + 1e-9).astype(np.int64), levels - 1)
        np.maximum.at(best, (self.found.query, level), precision)
        best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
        return recalls, best.mean(axis=0)


def count_positives_at_least(query: IntArray, similarity: FloatArray) -> IntArray:
    """Per positive, the number of positives of its query that are at least as similar; all arrays (f,)."""
    order = np.lexsort((-similarity, query))
    sorted_query, sorted_similarity = query[order], similarity[order]
    last_of_tie = np.flatnonzero(
        np.append((np.diff(sorted_query) != 0) | (np.diff(sorted_similarity) != 0), True)[: len(order)]
    )
    position = np.arange(len(order))
    tie_end = last_of_tie[np.searchsorted(last_of_tie, position)] if len(order) else position
    counts = np.empty(len(order), np.int64)
    counts[order] = tie_end - np.searchsorted(sorted_query, sorted_query) + 1
    return counts


def step_average_precision(found: FoundTruths, n_truths: IntArray) -> FloatArray:
    """Step AP times recall per query -> (q,); 0 if nothing is found.

    AP is the mean of the precisions at the found positives; times found / ground truths it is their sum
    divided by the number of ground truths.
    """
    precision_sum = np.bincount(found.query, found.positives / found.at_least, minlength=len(n_truths))
    return precision_sum / np.maximum(n_truths, 1)


def rank_result(
    found: FoundTruths,
    n_truths: IntArray,
    n_gallery: IntArray,
    n_above_best: IntArray,
    score_threshold: float | None,
) -> SearchResult:
    """Combine counts. `n_above_best` (q,): detections more similar than the best positive."""
    n_queries = len(n_truths)
    n_found = np.bincount(found.query, minlength=n_queries)
    recall = n_found / np.maximum(n_truths, 1)
    weakest = np.zeros(n_queries, np.int64)
    np.maximum.at(weakest, found.query, found.at_least)
    best = np.full(n_queries, np.iinfo(np.int64).max)
    np.minimum.at(best, found.query, found.at_least - found.positives)
    return SearchResult(
        score_threshold=score_threshold,
        ap=step_average_precision(found, n_truths),
        recall=recall,
        inp=n_found / np.maximum(weakest, 1) * recall,
        n_truths=n_truths,
        n_found=n_found,
        n_gallery=n_gallery,
        rank=np.where(n_found > 0, best + 1, 0),
        lucky_rank=np.where(n_found > 0, n_above_best + 1, 0),
        found=found,
    )
