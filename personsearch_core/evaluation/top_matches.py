"""The most similar detections of each query, and whether they show the query's person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from personsearch_core.evaluation.matching import iou, match_threshold
from personsearch_core.evaluation.records import BoolArray, FloatArray, GroundTruth, IntArray
from personsearch_core.evaluation.search import BlockCounts, SearchTask


@dataclass(frozen=True, eq=False)
class TopMatches:
    """Matches by query and rank: `query`, `rank` from 1, `image`, `similarity`, `is_right`, (n,) each.

    `boxes` (n, 4). A match is right if it overlaps a box of the query's person by the protocols' rule.
    """

    query: IntArray
    rank: IntArray
    image: IntArray
    boxes: FloatArray
    similarity: FloatArray
    is_right: BoolArray


def top_matches(task: SearchTask, blocks: Sequence[BlockCounts], truth: GroundTruth) -> TopMatches:
    """The best matches that a task kept. Raises PersonSearchError if queries have no person ids."""
    best = [of_query for block in blocks for of_query in block.best]
    counts = [len(detections) for detections, _ in best]
    query = np.repeat(np.arange(len(best)), counts)
    detection, similarity = (np.concatenate(part) for part in zip(*best, strict=True))
    rank = np.concatenate([np.arange(1, count + 1) for count in counts])
    image, boxes = task.gallery.image[detection], task.gallery.boxes[detection]
    is_right = shows_person(truth, image, boxes, task.queries.person_ids()[query])
    return TopMatches(query, rank, image, boxes, similarity, is_right)


def shows_person(truth: GroundTruth, image: IntArray, boxes: FloatArray, person: IntArray) -> BoolArray:
    """Whether each box (n, 4) of `image` (n,) matches a ground-truth box of `person` (n,) -> (n,)."""
    labelled = np.flatnonzero(truth.person_id >= 0)
    if not len(labelled):
        return np.zeros(len(boxes), bool)
    n_images = 1 + int(max(truth.image.max(), image.max(initial=0)))
    key = truth.person_id[labelled] * n_images + truth.image[labelled]
    order = np.argsort(key, kind="stable")
    place = np.searchsorted(key[order], person * n_images + image)
    candidate = labelled[order[np.minimum(place, len(order) - 1)]]
    same = (truth.person_id[candidate] == person) & (truth.image[candidate] == image)
    enough = iou(boxes, truth.boxes[candidate]) >= match_threshold(truth.boxes[candidate].astype(np.float64))
    is_right: BoolArray = same & enough
    return is_right
