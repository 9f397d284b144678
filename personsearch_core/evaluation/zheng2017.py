"""PRW's original protocol (Zheng et al., Person Re-identification in the Wild, CVPR 2017).

It labels detections once, drops some of them from each ranking, and integrates precision by trapezoids. Ties
are broken by the order of the input, so permuting detections may change the result; nothing else here does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from personsearch_core.evaluation.matching import expand_ranges, iou, keep_by_score
from personsearch_core.evaluation.parallel import Job, MapBlocks, run_jobs, serially
from personsearch_core.evaluation.records import (
    BoolArray,
    Detections,
    FloatArray,
    GroundTruth,
    IntArray,
    Queries,
)
from personsearch_core.identities import UNLABELLED

PERSON_IOU = 0.5
JUNK_IOU = 0.3
LAST_RANK = 1000
BACKGROUND = -2
JUNK = -3


@dataclass(frozen=True, eq=False)
class DetectionLabels:
    """What every detection (n,) shows: a person, UNLABELLED, JUNK or BACKGROUND; and the truths missed.

    `missed` holds rows of labelled ground truth in frames with detections that no detection overlaps enough.
    """

    person: IntArray
    missed: IntArray


@dataclass(frozen=True, eq=False)
class Zheng2017Result:
    """`ap` (q,), `rank` (q,) of the first positive among the first 1,000, 0 = none, `n_truths` (q,)."""

    score_threshold: float | None
    ap: FloatArray
    rank: IntArray
    n_truths: IntArray

    @property
    def mean_ap(self) -> float:
        return float(self.ap.mean())

    def hits(self, k: int) -> BoolArray:
        """Whether each query has a positive within the first k -> (q,)."""
        return (self.rank > 0) & (self.rank <= k)

    def cmc(self, max_rank: int) -> FloatArray:
        """Cumulative matching characteristic: rank-1 to rank-`max_rank` -> (max_rank,)."""
        first = np.bincount(self.rank[self.hits(max_rank)], minlength=max_rank + 1)
        return np.cumsum(first[1:]) / len(self.ap)

    def metrics(self) -> dict[str, float]:
        """The numbers that the paper reports, as fractions."""
        return {"mAP": self.mean_ap} | {f"rank{k}": float(self.hits(k).mean()) for k in (1, 20)}

    def per_query(self, query: IntArray | None = None) -> dict[str, FloatArray | IntArray | BoolArray]:
        """Columns of a per-query table; `query` (q,) numbers the queries, by default from 0."""
        return {
            "query": np.arange(len(self.ap)) if query is None else query,
            "ap": self.ap,
            "hit1": self.hits(1),
            "hit20": self.hits(20),
            "n_truths": self.n_truths.astype(np.int32),
            "rank": self.rank.astype(np.int32),
        }


def evaluate_zheng2017(
    detections: Detections,
    queries: Queries,
    truth: GroundTruth,
    cameras: IntArray,
    *,
    score_threshold: float | None = 0.5,
    keep: IntArray | None = None,
    map_blocks: MapBlocks = serially,
) -> Zheng2017Result:
    """Scores PRW as its authors do, always across cameras. `cameras` (n_images,), any integers.

    Images of unknown camera that share a number, such as -1, count as of one camera. Ranked are detections
    with `score >= score_threshold`, or the rows `keep` where given.
    """
    search = Zheng2017Search(detections, queries, truth, cameras)
    keep = keep if keep is not None else keep_by_score(detections, score_threshold)
    ranked = ranked_rows(search.labels, keep)
    job = search.job(ranked, detections.embeddings[ranked], None)
    (blocks,) = run_jobs([job], map_blocks)
    return search.result(blocks, score_threshold)


def ranked_rows(labels: DetectionLabels, keep: IntArray) -> IntArray:
    """Rows of `keep` that are neither junk nor unlabelled people, in the order of the input."""
    return np.sort(keep[np.isin(labels.person[keep], (JUNK, UNLABELLED), invert=True)])


class Zheng2017Search:
    """One set of detections and queries, of which any number of rankings is made.

    `labels` say what every detection shows, which does not depend on which are ranked.
    """

    def __init__(
        self, detections: Detections, queries: Queries, truth: GroundTruth, cameras: IntArray
    ) -> None:
        self.labels = label_detections(detections, truth)
        self._queries = queries
        self._camera = cameras[detections.image]
        self._query_camera = cameras[queries.image]
        self._n_truths = _denominators(detections, queries, truth, cameras, self.labels)

    def job(self, ranked: IntArray, pool: FloatArray, column: IntArray | None) -> Job:
        """The ranking of the rows `ranked`, ascending, whose embeddings are `pool[column]`, None = all."""
        ranking = _Ranking(
            self.labels.person[ranked],
            self._camera[ranked],
            self._queries.people(),
            self._query_camera,
            self._n_truths,
        )
        return Job(self._queries.embeddings, pool, column, partial(_rank_block, ranking))

    def result(
        self, blocks: Sequence[tuple[FloatArray, IntArray]], score_threshold: float | None
    ) -> Zheng2017Result:
        """Puts the blocks of a job together."""
        ap, rank = (np.concatenate(part) for part in zip(*blocks, strict=True))
        return Zheng2017Result(score_threshold, ap, rank, self._n_truths)


@dataclass(frozen=True, eq=False)
class _Ranking:
    """Person and camera of each ranked detection (n,) and of each query (q,); `n_truths` (q,)."""

    person: IntArray
    camera: IntArray
    query_person: IntArray
    query_camera: IntArray
    n_truths: IntArray


def _rank_block(ranking: _Ranking, block: range, products: FloatArray | None) -> tuple[FloatArray, IntArray]:
    """AP (b,) and rank of the first positive (b,) of a block's queries."""
    assert products is not None
    ap, rank = np.zeros(len(block)), np.zeros(len(block), np.int64)
    for i, (query, similarities) in enumerate(zip(block, products, strict=True)):
        own = np.flatnonzero(ranking.person == ranking.query_person[query])
        other_camera = ranking.camera[own] != ranking.query_camera[query]
        similarities[own[~other_camera]] = -np.inf
        ranks = _ranks_of(similarities, own[other_camera])
        ranks = ranks[ranks <= LAST_RANK]
        if len(ranks):
            ap[i] = trapezoid_average_precision(ranks, ranking.n_truths[query])
            rank[i] = ranks[0]
    return ap, rank


def label_detections(detections: Detections, truth: GroundTruth) -> DetectionLabels:
    """Labels every detection by the ground truth that it overlaps best; decided before any threshold.

    Of several detections with one person in a frame the one with the best overlap keeps it.
    """
    truth_order = np.argsort(truth.image, kind="stable")
    truth_image = truth.image[truth_order]
    starts = np.searchsorted(truth_image, detections.image, side="left")
    counts = np.searchsorted(truth_image, detections.image, side="right") - starts
    detection, position = expand_ranges(starts, counts)
    overlaps = iou(detections.boxes[detection], truth.boxes[truth_order[position]], extra=1.0)

    best = np.zeros(len(detections))
    np.maximum.at(best, detection, overlaps)
    best_truth = np.full(len(detections), -1)
    is_best = np.flatnonzero(overlaps == best[detection])[::-1]
    best_truth[detection[is_best]] = truth_order[position[is_best]]

    person = np.full(len(detections), BACKGROUND)
    person[best >= JUNK_IOU] = JUNK
    shows = best >= PERSON_IOU
    person[shows] = truth.person[best_truth[shows]]
    person[_outdone(detections.image, person, best)] = JUNK

    seen = np.zeros(len(truth), bool)
    seen[best_truth[shows]] = True
    in_frame_with_detections = np.isin(truth.image, detections.image)
    return DetectionLabels(
        person, np.flatnonzero(~seen & in_frame_with_detections & (truth.person != UNLABELLED))
    )


def _outdone(image: IntArray, person: IntArray, overlap: FloatArray) -> IntArray:
    """Detections of a person that another detection of the frame overlaps better; of equals the later."""
    labelled = np.flatnonzero(person >= 0)
    order = labelled[np.lexsort((-overlap[labelled], person[labelled], image[labelled]))]
    same = (np.diff(image[order], prepend=-1) == 0) & (np.diff(person[order], prepend=-1) == 0)
    return order[same]


def _denominators(
    detections: Detections, queries: Queries, truth: GroundTruth, cameras: IntArray, labels: DetectionLabels
) -> IntArray:
    """For each query, positives detected (at any score) and missed in other cameras -> (q,)."""
    # Dense, because keys of a negative camera would be those of another person.
    known, cameras = np.unique(cameras, return_inverse=True)
    person = np.concatenate([labels.person, truth.person[labels.missed]])
    camera = cameras[np.concatenate([detections.image, truth.image[labels.missed]])]
    labelled = person >= 0
    order = np.lexsort((camera[labelled], person[labelled]))
    person, camera = person[labelled][order], camera[labelled][order]

    wanted = queries.people()
    everywhere = np.searchsorted(person, wanted, "right") - np.searchsorted(person, wanted, "left")
    key, query_key = person * len(known) + camera, wanted * len(known) + cameras[queries.image]
    own_camera = np.searchsorted(key, query_key, "right") - np.searchsorted(key, query_key, "left")
    return everywhere - own_camera


def _ranks_of(similarities: FloatArray, positives: IntArray) -> IntArray:
    """1-based ranks, ascending, that `positives` have in a stable sort by falling similarity."""
    levels = similarities[positives]
    earlier_equals = [
        np.count_nonzero(similarities[:place] == level)
        for place, level in zip(positives, levels, strict=True)
    ]
    more_similar = [np.count_nonzero(similarities > level) for level in levels]
    return np.sort(np.array(earlier_equals, np.int64) + np.array(more_similar, np.int64) + 1)


def trapezoid_average_precision(ranks: IntArray, n_truths: int) -> float:
    """AP by trapezoids between the precision at each positive's rank and at the rank before it.

    `ranks` are 1-based and ascending; the precision before the first rank is 1.
    """
    found = np.arange(1, len(ranks) + 1)
    precision = found / ranks
    before = np.where(ranks > 1, (found - 1) / np.maximum(ranks - 1, 1), 1.0)
    return float(((precision + before) / 2).sum() / n_truths)
