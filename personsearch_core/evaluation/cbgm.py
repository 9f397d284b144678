"""Context bipartite graph matching, CBGM (Li & Miao, SeqNet, AAAI 2021, section 3.4).

The query and the people around it are matched to the people of the most similar gallery images so that the
pairs' similarities have the greatest sum. The detection matched to the query is then lifted:

- `max`, the default: to the greatest similarity of a matched pair, as in SeqNet's published code
  (`get_max_value_result` in `utils/km.py`), which gave its published numbers.
- `sum`: to the matching's total similarity, the objective that the matching maximises; commented out in that
  code.

The paper's settings are k1, k2 = 10, 3 for CUHK-SYSU and 30, 4 for PRW.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.optimize import linear_sum_assignment

from personsearch_core.evaluation.matching import GroupedDetections, iou
from personsearch_core.evaluation.records import FloatArray, IntArray, Queries
from personsearch_core.evaluation.search import SearchTask
from personsearch_core.recipes import ContextMatching

SAME_PERSON_IOU = 0.4
"""A detection with at least this overlap is the query itself: the NMS threshold of SeqNet's last head."""


def with_context_matching(task: SearchTask, recipe: ContextMatching) -> SearchTask:
    """The task, ranked with CBGM: k1 nearest detections choose images, k2 people are matched.

    The people around a query are the detections of its image, the most confident first; the gallery's
    threshold applies to them too.
    """
    contexts = tuple(_context(task.gallery, task.queries, i, recipe.k2) for i in range(len(task.queries)))
    return replace(task, rescore=partial(_lifted, task.gallery, contexts, recipe))


def _lifted(
    gallery: GroupedDetections,
    contexts: Sequence[FloatArray],
    recipe: ContextMatching,
    query: int,
    detections: IntArray,
    similarities: FloatArray,
) -> FloatArray:
    """Similarities in which the query's match is lifted, in each image of its k1 nearest detections.

    `contexts[i]` (c, d): query i's embedding, then those of the people around it.
    """
    lifted = similarities.copy()
    image = gallery.image[detections]
    nearest = np.argsort(-similarities, kind="stable")[: recipe.k1]
    for candidate in np.unique(image[nearest]):
        place = np.flatnonzero(image == candidate)
        weights = contexts[query] @ gallery.embeddings[detections[place]].T
        person, match = linear_sum_assignment(weights, maximize=True)
        if person[0] == 0:
            matched = weights[person, match]
            lifted[place[match[0]]] = matched.max() if recipe.lift == "max" else matched.sum()
    return lifted


def _context(gallery: GroupedDetections, queries: Queries, query: int, k2: int) -> FloatArray:
    image = queries.image[query]
    around = np.arange(gallery.image_starts[image], gallery.image_stops[image])
    own_box = np.broadcast_to(queries.boxes[query], (len(around), 4))
    others = around[iou(gallery.boxes[around], own_box) < SAME_PERSON_IOU][: k2 - 1]
    return np.concatenate([queries.embeddings[query : query + 1], gallery.embeddings[others]])
