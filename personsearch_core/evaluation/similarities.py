"""Similarities (dot products) of queries with the detections that each of them ranks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from personsearch_core.evaluation.matching import GroupedDetections, expand_ranges
from personsearch_core.evaluation.parallel import Products
from personsearch_core.evaluation.records import FloatArray, ImageLists, IntArray
from personsearch_core.evaluation.task import WholeGallery

if TYPE_CHECKING:
    from personsearch_core.evaluation.search import SearchTask

_BYTES_OF_A_LISTED_PAIR = 24
_LONG_LIST = 0.05
"""If lists name a larger fraction of all images, one product with the whole gallery is faster."""


class Ranked(NamedTuple):
    """One query's gallery.

    `values`: similarities of the ranked `detections`, hidden ones as -inf; None = all grouped detections, in
    order. `by_detection`: similarities of all grouped detections, meaningful where ranked. `n_ranked`: their
    number.
    """

    values: FloatArray
    detections: IntArray | None
    by_detection: FloatArray
    n_ranked: int


def listed_bytes(task: SearchTask) -> float | None:
    """Memory for one query's similarities if the task ranks a few listed images.

    None if it ranks by products with its whole gallery.
    """
    n_queries, n_images = len(task.queries), len(task.gallery.image_starts)
    if isinstance(task.scope, WholeGallery) or len(task.scope.image) > _LONG_LIST * n_queries * n_images:
        return None
    return len(task.scope.image) / n_queries * (len(task.gallery) / n_images) * _BYTES_OF_A_LISTED_PAIR


def rank_queries(task: SearchTask, block: range, products: Products | None) -> Iterator[Ranked]:
    """What each query of the block ranks, rescored if the task says so.

    `products` are the similarities with the task's gallery and are overwritten; None if `listed_bytes` is a
    number.
    """
    if task.rescore is None and isinstance(task.scope, WholeGallery):
        assert products is not None
        yield from _whole(task, task.scope, block, products)
        return
    by_detection = np.empty(len(task.gallery), np.float32)
    for query, (detections, values) in zip(block, similarities(task, block, products), strict=True):
        if task.rescore is not None:
            values = task.rescore(query, detections, values).astype(np.float32)
        by_detection[detections] = values
        yield Ranked(values, detections, by_detection, len(values))


def similarities(
    task: SearchTask, block: range, products: Products | None
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Per query of the block: its gallery's detections and their similarities, before rescoring."""
    if products is None:
        assert isinstance(task.scope, ImageLists)
        return _short_lists(task, task.scope, block)
    if isinstance(task.scope, WholeGallery):
        return _shown(task, task.scope, block, products)
    return _long_lists(task, task.scope, block, products)


def _whole(task: SearchTask, scope: WholeGallery, block: range, products: Products) -> Iterator[Ranked]:
    for query, row in zip(block, products, strict=True):
        hidden = hidden_detections(task.gallery, scope, query)
        row[hidden] = -np.inf
        yield Ranked(row, None, row, len(row) - len(hidden))


def _shown(
    task: SearchTask, scope: WholeGallery, block: range, products: Products
) -> Iterator[tuple[IntArray, FloatArray]]:
    for query, row in zip(block, products, strict=True):
        shown = np.ones(len(row), bool)
        shown[hidden_detections(task.gallery, scope, query)] = False
        detections = np.flatnonzero(shown)
        yield detections, row[detections]


def hidden_detections(gallery: GroupedDetections, scope: WholeGallery, query: int) -> IntArray:
    """Places of the detections in `gallery` that a query does not rank -> (h,), ascending."""
    group = scope.group[query]
    hidden = np.arange(0)
    if group >= 0:
        start, stop = gallery.group_starts[group], gallery.group_starts[group + 1]
        hidden = np.arange(start, stop)
        if scope.only:
            hidden = np.concatenate([np.arange(start), np.arange(stop, len(gallery))])
    if scope.also_hidden is None:
        return hidden
    images = scope.also_hidden.of(query)
    if group < 0 and len(images) == 1:
        return np.arange(gallery.image_starts[images[0]], gallery.image_stops[images[0]])
    return np.union1d(hidden, gallery.of_images(images)[1])


def _long_lists(
    task: SearchTask, scope: ImageLists, block: range, products: Products
) -> Iterator[tuple[IntArray, FloatArray]]:
    for query, row in zip(block, products, strict=True):
        _, detections = task.gallery.of_images(scope.of(query))
        yield detections, row[detections]


def _short_lists(task: SearchTask, scope: ImageLists, block: range) -> Iterator[tuple[IntArray, FloatArray]]:
    """Image by image, with all queries that list it: fetches fewer rows than query by query."""
    gallery = task.gallery
    offsets = scope.offsets[block.start : block.stop + 1] - scope.offsets[block.start]
    image = scope.image[scope.offsets[block.start] : scope.offsets[block.stop]]
    query = np.repeat(np.arange(block.start, block.stop), np.diff(offsets))
    starts = gallery.image_starts[image]
    counts = gallery.image_stops[image] - starts

    by_image = np.argsort(image)
    stops = np.cumsum(counts[by_image])
    products = _products_by_image(task, image[by_image], query[by_image], stops)
    place = np.empty(len(image), np.int64)
    place[by_image] = stops - counts[by_image]

    _, detections = expand_ranges(starts, counts)
    _, position = expand_ranges(place, counts)
    values = products[position]
    for first, last in pairwise(np.append(0, np.cumsum(counts))[offsets].tolist()):
        yield detections[first:last], values[first:last]


def _products_by_image(task: SearchTask, image: IntArray, query: IntArray, stops: IntArray) -> FloatArray:
    """Similarities of pairs (image, query) sorted by image: pair i's end at `stops[i]`."""
    gallery = task.gallery
    products = np.empty(stops[-1] if len(stops) else 0, np.float32)
    bounds = np.append(np.flatnonzero(np.diff(image, prepend=-1)), len(image))
    start = 0
    for first, last in pairwise(bounds.tolist()):
        shown = slice(gallery.image_starts[image[first]], gallery.image_stops[image[first]])
        stop = int(stops[last - 1])
        if stop > start:
            members = task.queries.embeddings.take(query[first:last], axis=0)
            block = products[start:stop].reshape(last - first, -1)
            np.matmul(members, gallery.embeddings[shown].T, out=block)
        start = stop
    return products
