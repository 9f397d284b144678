"""Results by box height, by crowdedness of the image and by camera pair."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from personsearch_core.evaluation.prw import evaluate_prw
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.records import Detections, FloatArray, GroundTruth, IntArray, Queries

HEIGHT_EDGES = (0.0, 100.0, 200.0, 300.0, 400.0)
"""Lower edges, in pixels, of the classes of query box height."""
CROWD_EDGES = (0.0, 2.0, 4.0, 8.0, 16.0)
"""Lower edges of the classes of people in the query's image."""


@dataclass(frozen=True)
class QueryClass:
    """The queries of one class and their means, as fractions."""

    name: str
    queries: int
    mean_ap: float
    rank1: float


def by_query_height(result: SearchResult, queries: Queries) -> list[QueryClass]:
    """Means by the height of the query's box, in pixels."""
    return by_class(result, queries.boxes[:, 3] - queries.boxes[:, 1], HEIGHT_EDGES)


def by_crowdedness(result: SearchResult, queries: Queries, people_in_image: IntArray) -> list[QueryClass]:
    """Means by the number of people (n_images,) in the query's image, annotated or detected."""
    return by_class(result, people_in_image[queries.image], CROWD_EDGES)


def by_class(
    result: SearchResult, values: FloatArray | IntArray, edges: tuple[float, ...]
) -> list[QueryClass]:
    """Means of queries by `values` (q,) in half-open classes from `edges` on; empty ones are left out."""
    place = np.searchsorted(edges, values, side="right") - 1
    names = [f"{low:g}-{high:g}" for low, high in pairwise(edges)] + [f">={edges[-1]:g}"]
    return [
        _class(name, result, np.flatnonzero(place == i)) for i, name in enumerate(names) if (place == i).any()
    ]


def by_camera_pair(
    detections: Detections,
    queries: Queries,
    truth: GroundTruth,
    cameras: IntArray,
    *,
    score_threshold: float | None = 0.5,
) -> list[QueryClass]:
    """PRW's protocol with the gallery cut to one camera's frames, for each camera of query and gallery.

    Only queries with ground truth in that camera count, so the numbers say how well a person is found there.
    """
    parts = []
    for gallery_camera in np.unique(cameras):
        shown = cameras == gallery_camera
        result = evaluate_prw(
            detections.select(shown[detections.image]),
            queries,
            truth.select(shown[truth.image]),
            cameras,
            score_threshold=score_threshold,
        )
        for query_camera in np.unique(cameras[queries.image]):
            members = np.flatnonzero((cameras[queries.image] == query_camera) & (result.n_truths > 0))
            if len(members):
                parts.append(_class(f"{query_camera} -> {gallery_camera}", result, members))
    return parts


def _class(name: str, result: SearchResult, members: IntArray) -> QueryClass:
    return QueryClass(
        name, len(members), float(result.ap[members].mean()), float(result.hits(1)[members].mean())
    )
