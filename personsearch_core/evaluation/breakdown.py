"""Results by box height, by crowdedness of the image, and by camera pair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from personsearch_core.evaluation.front import evaluate
from personsearch_core.evaluation.inputs import EvaluationInputs
from personsearch_core.evaluation.ranking import QueryResults
from personsearch_core.evaluation.records import FloatArray, IntArray, Queries
from personsearch_core.evaluation.settings import Setting
from personsearch_core.recipes import EvaluationRecipe

HEIGHT_EDGES = (0.0, 100.0, 200.0, 300.0, 400.0)
"""Lower edges, in pixels, of the classes of query height."""
CROWD_EDGES = (0.0, 2.0, 4.0, 8.0, 16.0)
"""Lower edges of the classes of number of people in the query's image."""


@dataclass(frozen=True)
class QueryClass:
    """The queries of one class and their means, as fractions."""

    name: str
    queries: int
    mean_ap: float
    rank1: float


def by_query_height(result: QueryResults, queries: Queries) -> list[QueryClass]:
    """Means by the height of the query's box, in pixels."""
    return by_class(result, queries.boxes[:, 3] - queries.boxes[:, 1], HEIGHT_EDGES)


def by_crowdedness(result: QueryResults, queries: Queries, people_in_image: IntArray) -> list[QueryClass]:
    """Means by the number of people (n_images,) in the query's image, annotated or detected."""
    return by_class(result, people_in_image[queries.image], CROWD_EDGES)


def by_class(
    result: QueryResults, values: FloatArray | IntArray, edges: tuple[float, ...]
) -> list[QueryClass]:
    """Means of queries by `values` (q,), in half-open classes that start at `edges`; without empty ones."""
    place = np.searchsorted(edges, values, side="right") - 1
    names = [f"{low:g}-{high:g}" for low, high in pairwise(edges)] + [f">={edges[-1]:g}"]
    return [
        _class(name, result, np.flatnonzero(place == i)) for i, name in enumerate(names) if (place == i).any()
    ]


def by_camera_pair(inputs: EvaluationInputs, setting: Setting) -> list[QueryClass]:
    """PRW's protocol with the gallery limited to one camera's frames, per pair of query and gallery camera.

    Only queries with ground truth in that camera count: the numbers say how well people are found there.
    """
    truth, cameras = (inputs.required(name, "a breakdown by camera") for name in ("truth", "cameras"))
    query_cameras = cameras[inputs.protocol(setting.protocol).queries.image]
    classes = []
    for camera in np.unique(cameras):
        shown = cameras == camera
        found = inputs.detections.select(shown[inputs.detections.image])
        cut = replace(inputs, detections=found, truth=truth.select(shown[truth.image]), truth_embeddings=None)
        (scored,) = evaluate(EvaluationRecipe(), cut, settings=[setting], detection_at=None).searches
        for query_camera in np.unique(query_cameras):
            members = np.flatnonzero((query_cameras == query_camera) & (scored.result.n_truths > 0))
            if len(members):
                classes.append(_class(f"{query_camera} -> {camera}", scored.result, members))
    return classes


def _class(name: str, result: QueryResults, members: IntArray) -> QueryClass:
    return QueryClass(
        name, len(members), float(result.ap[members].mean()), float(result.hits(1)[members].mean())
    )
