"""The embeddings that a setting compares: other similarities as dot products, and queries as detected."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.matching import equal_pairs, iou
from personsearch_core.evaluation.records import Detections, FloatArray, Queries

Similarity = Literal["dot", "cosine", "euclidean"]

_ROUNDING = 1e-5
"""Relative; embeddings normalised in float32 differ by less in their norms."""


def of_one_norm(embeddings: FloatArray) -> bool:
    """Whether all have the same norm, so that dot product, cosine and distance rank them alike."""
    squares = _squared_norms(embeddings)
    return not len(squares) or bool(np.ptp(squares) <= _ROUNDING * squares.max())


def comparable_detections(detections: Detections, similarity: Similarity) -> Detections:
    """Detections whose dot products with `comparable_queries` rank them by `similarity`."""
    embeddings = detections.embeddings
    if similarity == "cosine":
        norms = np.sqrt(_squared_norms(embeddings)).astype(np.float32)
        embeddings = embeddings / np.maximum(norms, np.finfo(np.float32).tiny)[:, None]
    elif similarity == "euclidean":
        # |q - g|^2 = |q|^2 - 2 (q.g - |g|^2 / 2)
        halves = (-_squared_norms(embeddings) / 2).astype(np.float32)
        embeddings = np.concatenate([embeddings, halves[:, None]], axis=1)
    else:
        return detections
    return replace(detections, embeddings=embeddings)


def comparable_queries(queries: Queries, similarity: Similarity) -> Queries:
    """Queries to compare with `comparable_detections`; a query's norm does not change its ranking."""
    if similarity != "euclidean":
        return queries
    ones = np.ones((len(queries), 1), np.float32)
    return replace(queries, embeddings=np.concatenate([queries.embeddings, ones], axis=1))


def detected_queries(queries: Queries, detections: Detections) -> Queries:
    """Each query with the embedding of the detection in its image that overlaps its box best.

    Boxes are clipped at 0 and truncated, overlaps computed with "+1"; the first is taken among equals.
    Raises PersonSearchError if an image of a query has no detection.
    """
    order = np.argsort(detections.image, kind="stable")
    query, place = equal_pairs(queries.image, detections.image[order])
    counts = np.bincount(query, minlength=len(queries))
    if not counts.all():
        without = np.flatnonzero(counts == 0)
        raise PersonSearchError(
            f"{len(without)} of {len(queries)} queries have no detection in their image "
            f"(first: query {without[0]})"
        )
    boxes = np.maximum(np.trunc(queries.boxes.astype(np.float64)), 0)
    overlaps = iou(detections.boxes[order[place]], boxes[query], extra=1.0)
    best = np.lexsort((order[place], -overlaps, query))[np.cumsum(counts) - counts]
    return replace(queries, embeddings=detections.embeddings[order[place[best]]])


def _squared_norms(embeddings: FloatArray) -> FloatArray:
    squares: FloatArray = np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64)
    return squares
