"""The most similar detections of each query, and whether they show the query's person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from personsearch_core.evaluation.matching import GroupedDetections, iou, match_threshold
from personsearch_core.evaluation.records import BoolArray, FloatArray, GroundTruth, IntArray, Queries
from personsearch_core.evaluation.search import BestDetections


@dataclass(frozen=True, eq=False)
class TopMatches:
    """Matches by query and rank: `query`, `rank` from 1, `image`, `similarity`, `is_right`, (n,) each.

    `boxes` (n, 4). A match is right where it overlaps a box of the query's person by the protocols' rule.
    """

    query: IntArray
    rank: IntArray
    image: IntArray
    boxes: FloatArray
    similarity: FloatArray
    is_right: BoolArray


def top_matches(
    gallery: GroupedDetections, best: BestDetections, queries: Queries, truth: GroundTruth
) -> TopMatches:
    """What `best` keeps of a ranking of `gallery`. Raises PersonSearchError if queries have no ids."""
    counts = np.diff(best.offsets)
    query = np.repeat(np.arange(len(queries)), counts)
    image, boxes = gallery.image[best.detection], gallery.boxes[best.detection]
    return TopMatches(
        query,
        np.arange(len(query)) - np.repeat(best.offsets[:-1], counts) + 1,
        image,
        boxes,
        best.similarity,
        shows_person(truth, image, boxes, queries.people()[query]),
    )


def shows_person(truth: GroundTruth, image: IntArray, boxes: FloatArray, person: IntArray) -> BoolArray:
    """Whether each box (n, 4) of `image` (n,) overlaps a ground-truth box of `person` (n,) enough -> (n,)."""
    labelled = np.flatnonzero(truth.person >= 0)
    if not len(labelled):
        return np.zeros(len(boxes), bool)
    n_images = 1 + int(max(truth.image.max(), image.max(initial=0)))
    key = truth.person[labelled] * n_images + truth.image[labelled]
    order = np.argsort(key, kind="stable")
    place = np.searchsorted(key[order], person * n_images + image)
    candidate = labelled[order[np.minimum(place, len(order) - 1)]]
    same = (truth.person[candidate] == person) & (truth.image[candidate] == image)
    enough = iou(boxes, truth.boxes[candidate]) >= match_threshold(truth.boxes[candidate].astype(np.float64))
    return same & enough
