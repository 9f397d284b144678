"""PRW's search protocol as person-search papers report it: all test frames except the query's.

`search_in_lists` is the same with a listed gallery per query, for example the images of its sequence.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from personsearch_core.evaluation.matching import equal_pairs
from personsearch_core.evaluation.records import (
    FloatArray,
    GalleryLists,
    GroundTruth,
    ImageLists,
    IntArray,
    Queries,
)
from personsearch_core.evaluation.task import NO_GROUP, QueryTruths, WholeGallery
from personsearch_core.identities import UNLABELLED

_DIGITS = 3


def whole_search(
    queries: Queries,
    truth: GroundTruth,
    image_group: IntArray,
    also_hidden: ImageLists | None = None,
    cameras: Literal["all", "other", "same"] = "all",
    truncate: Literal["corners", "sizes"] = "corners",
) -> tuple[WholeGallery, QueryTruths]:
    """What each query ranks and should find.

    Images are grouped by `image_group` (n_images,): by themselves, or by camera. A query's own frame is left
    out, of the ground truth too; by `cameras` all frames of its own group are, or all others. Queries without
    ground truth count as AP 0 and a miss (`SearchResult.without_truth`). `also_hidden` removes further
    frames: those of the query's other shots. The gallery must be grouped by `image_group`.
    """
    own, by_image = image_group[queries.image], len(np.unique(image_group)) == len(image_group)
    if cameras == "all" and not by_image:
        also_hidden = also_hidden or ImageLists(np.arange(len(queries) + 1), queries.image)
        own = np.full(len(queries), NO_GROUP)
    scope = WholeGallery(own, also_hidden, only=cameras == "same")
    return scope, _truths(queries, truth, image_group, scope, truncate)


def _truths(
    queries: Queries,
    truth: GroundTruth,
    image_group: IntArray,
    scope: WholeGallery,
    truncate: Literal["corners", "sizes"],
) -> QueryTruths:
    rows = first_box_of_each_person(truth)
    rows = rows[np.argsort(truth.person_id[rows], kind="stable")]
    query, position = equal_pairs(queries.person_ids(), truth.person_id[rows])
    row = rows[position]
    shown = (image_group[truth.image[row]] == scope.group[query]) == scope.only
    if scope.also_hidden is not None:
        hidden = scope.also_hidden.queries() * len(image_group) + scope.also_hidden.image
        shown &= ~np.isin(query * len(image_group) + truth.image[row], hidden)
    query, row = query[shown], row[shown]
    offsets = np.searchsorted(query, np.arange(len(queries) + 1))
    boxes = search_boxes(truth.boxes[row], truncate)
    return QueryTruths(offsets, truth.image[row], boxes, np.diff(offsets))


def search_in_lists(
    queries: Queries, truth: GroundTruth, image_group: IntArray, lists: GalleryLists
) -> tuple[ImageLists, QueryTruths]:
    """Like `whole_search`, but query i ranks only the images of entry i of `lists`, without its own group.

    Ground truth comes from the annotations, not from the lists.
    """
    n_images, query = len(image_group), lists.queries()
    shown = image_group[lists.image] != image_group[queries.image[query]]
    query, image = query[shown], lists.image[shown]
    scope = ImageLists(np.searchsorted(query, np.arange(len(queries) + 1)), image)

    rows = first_box_of_each_person(truth)
    key = truth.person_id[rows] * n_images + truth.image[rows]
    rows, key = rows[np.argsort(key)], np.sort(key)
    wanted = queries.person_ids()[query] * n_images + image
    place = np.searchsorted(key, wanted)
    found = np.append(key, -1)[place] == wanted
    found &= queries.person_ids()[query] >= 0
    row = rows[place[found]]
    offsets = np.searchsorted(query[found], np.arange(len(queries) + 1))
    return scope, QueryTruths(offsets, truth.image[row], search_boxes(truth.boxes[row]), np.diff(offsets))


def first_box_of_each_person(truth: GroundTruth) -> IntArray:
    """Rows of labelled people, ordered by image; of a person repeated in an image, the first."""
    labelled = np.flatnonzero((truth.person_id != UNLABELLED) & ~truth.ignore)
    order = labelled[np.lexsort((truth.person_id[labelled], truth.image[labelled]))]
    repeats = (np.diff(truth.image[order], prepend=-1) == 0) & (
        np.diff(truth.person_id[order], prepend=-1) == 0
    )
    return order[np.flatnonzero(~repeats)]


def search_boxes(boxes: FloatArray, truncate: Literal["corners", "sizes"] = "corners") -> FloatArray:
    """Ground-truth boxes (n, 4) as person-search code reads them.

    x and y are clipped at 0, keeping width and height. All are truncated to integers: the corners, or x, y,
    width and height before they are added.
    """
    boxes = boxes.astype(np.float64)
    size = boxes[:, 2:] - boxes[:, :2]
    corner = np.maximum(boxes[:, :2], 0)
    if truncate == "sizes":
        # A width that was whole in the file is not always the difference of two float32 corners.
        corner, size = np.trunc(corner), np.trunc(np.round(size, _DIGITS))
    integers: FloatArray = np.trunc(np.concatenate([corner, corner + size], axis=1))
    return integers
