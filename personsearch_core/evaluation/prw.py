"""PRW's search protocol as person-search papers report it: all test frames except the query's."""

from __future__ import annotations

import numpy as np

from personsearch_core.evaluation.matching import expand_ranges
from personsearch_core.evaluation.records import FloatArray, GroundTruth, IntArray, Queries
from personsearch_core.evaluation.task import HiddenImages, QueryTruths, WholeGallery
from personsearch_core.identities import UNLABELLED


def whole_search(
    queries: Queries, truth: GroundTruth, image_group: IntArray, also_hidden: HiddenImages | None = None
) -> tuple[WholeGallery, QueryTruths]:
    """What each query ranks and should find.

    Frames of the query's own `image_group` (n_images,) are left out, of the ground truth too: a group is a
    frame, or a camera in a search across cameras. Queries without ground truth count as AP 0 and a miss
    (`SearchResult.without_truth`). `also_hidden` removes further frames: those of the query's other shots.
    The gallery must be grouped by `image_group`.
    """
    scope = WholeGallery(image_group[queries.image], also_hidden)
    return scope, _truths(queries, truth, image_group, scope)


def _truths(queries: Queries, truth: GroundTruth, image_group: IntArray, scope: WholeGallery) -> QueryTruths:
    rows = first_box_of_each_person(truth)
    rows = rows[np.argsort(truth.person_id[rows], kind="stable")]
    people = truth.person_id[rows]
    starts = np.searchsorted(people, queries.person_ids(), side="left")
    stops = np.searchsorted(people, queries.person_ids(), side="right")
    query, position = expand_ranges(starts, stops - starts)
    row = rows[position]
    shown = image_group[truth.image[row]] != scope.hidden_group[query]
    if scope.also_hidden is not None:
        hidden_query = np.repeat(np.arange(len(queries)), np.diff(scope.also_hidden.offsets))
        key = query * len(image_group) + truth.image[row]
        shown &= ~np.isin(key, hidden_query * len(image_group) + scope.also_hidden.image)
    query, row = query[shown], row[shown]
    offsets = np.searchsorted(query, np.arange(len(queries) + 1))
    return QueryTruths(offsets, truth.image[row], search_boxes(truth.boxes[row]), np.diff(offsets))


def first_box_of_each_person(truth: GroundTruth) -> IntArray:
    """Rows of labelled people, ordered by image; of a person repeated in an image, the first."""
    labelled = np.flatnonzero((truth.person_id != UNLABELLED) & ~truth.ignore)
    order = labelled[np.lexsort((truth.person_id[labelled], truth.image[labelled]))]
    repeats = (np.diff(truth.image[order], prepend=-1) == 0) & (
        np.diff(truth.person_id[order], prepend=-1) == 0
    )
    return order[np.flatnonzero(~repeats)]


def search_boxes(boxes: FloatArray) -> FloatArray:
    """Ground-truth boxes (n, 4) as person-search code reads them.

    x and y are clipped at 0, keeping width and height, then all are truncated to integers.
    """
    boxes = boxes.astype(np.float64)
    size = boxes[:, 2:] - boxes[:, :2]
    corner = np.maximum(boxes[:, :2], 0)
    integers: FloatArray = np.trunc(np.concatenate([corner, corner + size], axis=1))
    return integers
