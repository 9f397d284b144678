"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) of the head of each ranking.

The reference method compares all pairs of queries and gallery. Here the set is one query and its nearest
detections, so cost and memory do not grow with the gallery; the rest keep their order below them. With
`depth` at least the gallery's size it equals the reference method for a single query.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from personsearch_core.evaluation.records import BoolArray, FloatArray, IntArray
from personsearch_core.evaluation.search import SearchTask
from personsearch_core.recipes import ReRanking


def with_k_reciprocal(task: SearchTask, recipe: ReRanking) -> SearchTask:
    """The task, ranked with k-reciprocal re-ranking of the most similar detections of each query."""
    rescore = partial(_re_ranked, task.queries.embeddings, task.gallery.embeddings, recipe)
    return replace(task, rescore=rescore)


def _re_ranked(
    queries: FloatArray,
    gallery: FloatArray,
    recipe: ReRanking,
    query: int,
    detections: IntArray,
    similarities: FloatArray,
) -> FloatArray:
    """Similarities (n,) with the `recipe.depth` largest replaced; they stay above the rest."""
    head = np.argsort(-similarities, kind="stable")[: recipe.depth]
    if not len(head):
        return similarities
    members = np.concatenate([queries[query : query + 1], gallery[detections[head]]])
    distances = k_reciprocal_distances(members, recipe.k1, recipe.k2, recipe.weight)
    rest = np.delete(similarities, head)
    rescored = similarities.copy()
    rescored[head] = rest.max(initial=0.0) + 2.0 - distances
    return rescored


def k_reciprocal_distances(members: FloatArray, k1: int, k2: int, original_weight: float) -> FloatArray:
    """Re-ranked distances of `members[0]` to `members[1:]`, (n + 1, d) -> (n,), each within 0..1.

    Jaccard distance of the expanded k-reciprocal neighbourhoods, mixed with the squared Euclidean distance
    divided by its row's maximum.
    """
    members = members.astype(np.float64)
    norms = (members**2).sum(axis=1)
    distances = np.maximum(norms[:, None] + norms - 2 * members @ members.T, 0)
    distances /= np.maximum(distances.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    order = np.argsort(distances, axis=1, kind="stable")

    neighbours = _expanded_neighbours(order, k1)
    weights = np.where(neighbours, np.exp(-distances), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    if k2 > 1:
        weights = weights[order[:, :k2]].mean(axis=1)
    overlap = np.minimum(weights[0], weights[1:]).sum(axis=1)
    jaccard = 1 - overlap / (2 - overlap)
    mixed: FloatArray = jaccard * (1 - original_weight) + distances[0, 1:] * original_weight
    return mixed


def _expanded_neighbours(order: IntArray, k1: int) -> BoolArray:
    """R*(p, k1): k-reciprocal neighbours, plus those of members with two thirds in common -> (n, n)."""
    reciprocal = _reciprocal(order, k1 + 1)
    half = _reciprocal(order, round(k1 / 2) + 1)
    common = half.astype(np.float64) @ reciprocal.T.astype(np.float64)
    joins = (common > 2 / 3 * half.sum(axis=1, keepdims=True)).T & reciprocal
    expanded: BoolArray = reciprocal | ((joins.astype(np.float64) @ half.astype(np.float64)) > 0)
    return expanded


def _reciprocal(order: IntArray, k: int) -> BoolArray:
    """Whether both are among each other's first k, themselves included -> (n, n)."""
    near = np.zeros(order.shape, bool)
    np.put_along_axis(near, order[:, :k], True, axis=1)
    return near & near.T
