"""PRW's search protocol with a listed gallery per query, for example the images of its sequence."""

from __future__ import annotations

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.prw import first_box_of_each_person, search_boxes
from personsearch_core.evaluation.records import GalleryLists, GroundTruth, IntArray, Queries
from personsearch_core.evaluation.task import ListedGallery, QueryTruths


def search_in_lists(
    queries: Queries, truth: GroundTruth, image_group: IntArray, lists: GalleryLists
) -> tuple[ListedGallery, QueryTruths]:
    """Like `whole_search`, but query i ranks only the images of entry i of `lists`, without its own group.

    Ground truth comes from the annotations, not from the lists.
    """
    if len(lists) != len(queries):
        raise PersonSearchError(f"the protocol has {len(lists)} queries, but the table has {len(queries)}")
    n_images = len(image_group)
    query = np.repeat(np.arange(len(queries)), np.diff(lists.offsets))
    shown = image_group[lists.image] != image_group[queries.image[query]]
    query, image = query[shown], lists.image[shown]
    scope = ListedGallery(np.searchsorted(query, np.arange(len(queries) + 1)), image)

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
