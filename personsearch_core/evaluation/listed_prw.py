"""PRW's search protocol where each query's gallery is listed, such as the images of its sequence."""

from __future__ import annotations

import numpy as np

from personsearch_core.evaluation.matching import group_by_image, keep_by_score
from personsearch_core.evaluation.prw import first_box_of_each_person, search_boxes
from personsearch_core.evaluation.records import Detections, GalleryLists, GroundTruth, IntArray, Queries
from personsearch_core.evaluation.task import ListedGallery, QueryTruths, SearchTask


def listed_prw_task(
    detections: Detections,
    queries: Queries,
    truth: GroundTruth,
    cameras: IntArray,
    lists: GalleryLists,
    *,
    cross_camera: bool = False,
    score_threshold: float | None = 0.5,
) -> SearchTask:
    """The same as `prw_task`, but query i is searched in the images of `lists` alone, never in its own.

    Ground truth is that of the annotations, not that of the lists.
    """
    n_images = len(cameras)
    query = np.repeat(np.arange(len(queries)), np.diff(lists.offsets))
    own = queries.image[query]
    shown = cameras[lists.image] != cameras[own] if cross_camera else lists.image != own
    query, image = query[shown], lists.image[shown]
    scope = ListedGallery(np.searchsorted(query, np.arange(len(queries) + 1)), image)

    rows = first_box_of_each_person(truth)
    key = truth.person[rows] * n_images + truth.image[rows]
    rows, key = rows[np.argsort(key)], np.sort(key)
    wanted = queries.people()[query] * n_images + image
    place = np.searchsorted(key, wanted)
    found = np.append(key, -1)[place] == wanted
    found &= queries.people()[query] >= 0
    row = rows[place[found]]
    offsets = np.searchsorted(query[found], np.arange(len(queries) + 1))
    truths = QueryTruths(offsets, truth.image[row], search_boxes(truth.boxes[row]), np.diff(offsets))
    gallery = group_by_image(detections, keep_by_score(detections, score_threshold), n_images)
    return SearchTask(queries.embeddings, gallery, scope, truths)
