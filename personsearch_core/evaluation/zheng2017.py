"""PRW's original protocol (Zheng et al., Person Re-identification in the Wild, CVPR 2017).

It labels detections once, drops some of them from each ranking, and integrates precision by trapezoids. Ties
are broken by input order, so permuting detections may change the result; elsewhere in this package it cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from personsearch_core.evaluation.matching import GroupedDetections, equal_pairs, iou
from personsearch_core.evaluation.parallel import Job, Products
from personsearch_core.evaluation.ranking import QueryResults
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
BACKGROUND = UNLABELLED - 2
JUNK = UNLABELLED - 3
"""Not the next number below UNLABELLED, which readers give to people that have no box in the test set."""


@dataclass(frozen=True, eq=False)
class DetectionLabels:
    """What each detection (n,) shows: a person, UNLABELLED, JUNK or BACKGROUND; and missed ground truth.

    `missed`: rows of labelled ground truth, in frames with detections, that no detection overlaps enough.
    """

    person_id: IntArray
    missed: IntArray


@dataclass(frozen=True, eq=False)
class Zheng2017Result(QueryResults):
    """`rank` is that of the first positive within the first 1,000."""

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


@dataclass(frozen=True, eq=False)
class Zheng2017Task:
    """PRW as its authors score it, always across cameras.

    `person_id` and `camera` (n,) of the gallery's detections; `query_camera` and `n_truths` (q,).
    """

    queries: Queries
    gallery: GroupedDetections
    person_id: IntArray
    camera: IntArray
    query_camera: IntArray
    n_truths: IntArray
    score_threshold: float | None = None
    """The lowest score of what is ranked; None = any."""

    def job(self) -> Job:
        """The ranking, as a job for workers."""
        return Job(
            self.queries.embeddings, self.gallery.pool, self.gallery.column, partial(_rank_block, self)
        )

    def result(self, blocks: Sequence[tuple[FloatArray, IntArray]]) -> Zheng2017Result:
        """Combine the blocks."""
        ap, rank = (np.concatenate(part) for part in zip(*blocks, strict=True))
        return Zheng2017Result(self.score_threshold, ap, rank, self.n_truths)


def zheng2017_task(
    gallery: GroupedDetections,
    detections: Detections,
    queries: Queries,
    truth: GroundTruth,
    cameras: IntArray,
    labels: DetectionLabels,
) -> Zheng2017Task:
    """Rank `gallery`: the chosen `detections` that are neither junk nor unlabelled people.

    `labels` are of all detections. Images that share a number in `cameras` (n_images,), also -1, count as of
    one camera.
    """
    return Zheng2017Task(
        queries,
        gallery,
        person_id=labels.person_id[gallery.row],
        camera=cameras[gallery.image],
        query_camera=cameras[queries.image],
        n_truths=_denominators(detections, queries, truth, cameras, labels),
    )


def _rank_block(task: Zheng2017Task, block: range, products: Products | None) -> tuple[FloatArray, IntArray]:
    """AP (b,) and rank of the first positive (b,) of a block's queries."""
    assert products is not None
    query_person = task.queries.person_ids()
    found = []
    for query, similarities in zip(block, products, strict=True):
        own = np.flatnonzero(task.person_id == query_person[query])
        other_camera = task.camera[own] != task.query_camera[query]
        similarities[own[~other_camera]] = -np.inf
        found.append(_ranks_of(similarities, own[other_camera], task.gallery.row))
    of_query = np.repeat(np.arange(len(block)), [len(ranks) for ranks in found])
    n_truths = task.n_truths[block.start : block.stop]
    return average_precisions(of_query, np.concatenate(found), n_truths)


def label_detections(detections: Detections, truth: GroundTruth) -> DetectionLabels:
    """Label each detection by the ground truth that it overlaps best, before any threshold.

    If several detections of a frame show one person, the one with the best overlap keeps it.
    """
    truth_order = np.argsort(truth.image, kind="stable")
    detection, position = equal_pairs(detections.image, truth.image[truth_order])
    overlaps = iou(detections.boxes[detection], truth.boxes[truth_order[position]], extra=1.0)

    best = np.zeros(len(detections))
    np.maximum.at(best, detection, overlaps)
    best_truth = np.full(len(detections), -1)
    is_best = np.flatnonzero(overlaps == best[detection])[::-1]
    best_truth[detection[is_best]] = truth_order[position[is_best]]

    person = np.full(len(detections), BACKGROUND)
    person[best >= JUNK_IOU] = JUNK
    shows = best >= PERSON_IOU
    person[shows] = truth.person_id[best_truth[shows]]
    person[_outdone(detections.image, person, best)] = JUNK

    seen = np.zeros(len(truth), bool)
    seen[best_truth[shows]] = True
    in_frame_with_detections = np.isin(truth.image, detections.image)
    return DetectionLabels(
        person, np.flatnonzero(~seen & in_frame_with_detections & (truth.person_id != UNLABELLED))
    )


def _outdone(image: IntArray, person: IntArray, overlap: FloatArray) -> IntArray:
    """Detections of a person that another detection of the frame overlaps better; the later among equals."""
    labelled = np.flatnonzero(person >= 0)
    order = labelled[np.lexsort((-overlap[labelled], person[labelled], image[labelled]))]
    same = (np.diff(image[order], prepend=-1) == 0) & (np.diff(person[order], prepend=-1) == 0)
    return order[np.flatnonzero(same)]


def _denominators(
    detections: Detections, queries: Queries, truth: GroundTruth, cameras: IntArray, labels: DetectionLabels
) -> IntArray:
    """Per query, positives in other cameras, detected (at any score) or missed -> (q,)."""
    # Dense, because a negative camera would collide with another person's keys.
    known, cameras = np.unique(cameras, return_inverse=True)
    person = np.concatenate([labels.person_id, truth.person_id[labels.missed]])
    camera = cameras[np.concatenate([detections.image, truth.image[labels.missed]])]
    labelled = person >= 0
    order = np.lexsort((camera[labelled], person[labelled]))
    person, camera = person[labelled][order], camera[labelled][order]

    wanted = queries.person_ids()
    everywhere = np.searchsorted(person, wanted, "right") - np.searchsorted(person, wanted, "left")
    key, query_key = person * len(known) + camera, wanted * len(known) + cameras[queries.image]
    own_camera = np.searchsorted(key, query_key, "right") - np.searchsorted(key, query_key, "left")
    return everywhere - own_camera


def _ranks_of(similarities: FloatArray, positives: IntArray, row: IntArray) -> IntArray:
    """1-based ranks, ascending, of `positives` by falling similarity; ties by `row` (n,)."""
    levels, rising = similarities[positives], np.sort(similarities)
    ranks = len(rising) - np.searchsorted(rising, levels, side="left")
    more_similar = len(rising) - np.searchsorted(rising, levels, side="right")
    for i in np.flatnonzero(ranks - more_similar > 1):
        later = row[similarities == levels[i]] > row[positives[i]]
        ranks[i] -= np.count_nonzero(later)
    return np.sort(ranks)


def average_precisions(query: IntArray, ranks: IntArray, n_truths: IntArray) -> tuple[FloatArray, IntArray]:
    """AP (q,) and rank of the first positive (q,), 0 if none, from `ranks` (f,) of positives of `query` (f,).

    AP is the area below trapezoids between the precision at each positive's rank and at the rank before it.
    Ranks are 1-based; the precision before the first one is 1. `n_truths` (q,).
    """
    within = ranks <= LAST_RANK
    query, ranks = query[within], ranks[within]
    order = np.lexsort((ranks, query))
    query, ranks = query[order], ranks[order]
    starts = np.searchsorted(query, np.arange(len(n_truths)))
    found = np.arange(1, len(ranks) + 1) - starts[query]
    before = np.where(ranks > 1, (found - 1) / np.maximum(ranks - 1, 1), 1.0)
    areas = np.bincount(query, (found / ranks + before) / 2, minlength=len(n_truths))
    first = np.zeros(len(n_truths), np.int64)
    has_one = np.unique(query)
    first[has_one] = ranks[starts[has_one]]
    return areas / np.maximum(n_truths, 1), first
