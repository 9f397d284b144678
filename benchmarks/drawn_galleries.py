"""Random detections, queries and ground truth at the sizes of the real protocols."""

from __future__ import annotations

import numpy as np

from personsearch_core.evaluation.records import (
    Detections,
    FloatArray,
    GalleryLists,
    GroundTruth,
    IntArray,
    Queries,
)

DIMENSIONS = 256


def cuhk_sysu_like(rng: np.random.Generator) -> tuple[Detections, Queries, GalleryLists]:
    """A problem of the size of CUHK-SYSU's G100: 6,978 images, 2,900 queries with two positives each."""
    n_images, n_queries, size = 6978, 2900, 100
    image = np.sort(rng.integers(0, n_images, 22_856))
    detections = _random_detections(rng, image)
    lists = np.stack([rng.choice(n_images, size + 1, replace=False) for _ in range(n_queries)])
    is_positive = np.tile(np.arange(size) < 2, n_queries)
    boxes = np.zeros((n_queries * size, 4))
    boxes[is_positive] = _boxes_in(rng, detections, lists[:, 1:].ravel()[is_positive])
    offsets = np.arange(n_queries + 1) * size
    queries = Queries(lists[:, 0], _random_boxes(rng, n_queries), _embeddings(rng, n_queries))
    return detections, queries, GalleryLists(offsets, lists[:, 1:].ravel(), is_positive, boxes)


def prw_like(
    rng: np.random.Generator,
    n_images: int = 6112,
    n_detections: int = 31_000,
    n_queries: int = 2057,
    dimensions: int = DIMENSIONS,
) -> tuple[Detections, Queries, GroundTruth, IntArray]:
    """A problem of the size of PRW's test set by default, else of `n_images` and `n_detections`."""
    image = np.sort(rng.integers(0, n_images, n_detections))
    detections = _random_detections(rng, image, dimensions)
    shown = rng.choice(n_detections, int(0.6 * n_detections), replace=False)
    boxes = detections.boxes[shown] + rng.integers(-3, 4, (len(shown), 4)).astype(np.float32)
    truth = GroundTruth(detections.image[shown], boxes, rng.integers(0, 544, len(shown)))
    chosen = rng.choice(len(shown), n_queries, replace=False)
    embeddings = _embeddings(rng, n_queries, dimensions)
    queries = Queries(truth.image[chosen], boxes[chosen], embeddings, truth.person_id[chosen])
    return detections, queries, truth, rng.integers(1, 7, n_images)


def _random_detections(rng: np.random.Generator, image: IntArray, dimensions: int = DIMENSIONS) -> Detections:
    scores = rng.uniform(0.5, 1, len(image)).astype(np.float32)
    return Detections(image, _random_boxes(rng, len(image)), scores, _embeddings(rng, len(image), dimensions))


def _random_boxes(rng: np.random.Generator, n: int) -> FloatArray:
    corner, size = rng.integers(0, 800, (n, 2)), rng.integers(40, 200, (n, 2))
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def _boxes_in(rng: np.random.Generator, detections: Detections, images: IntArray) -> FloatArray:
    """For each image the box of one of its detections, or a random box if it has none."""
    first = np.searchsorted(detections.image, images)
    first = np.minimum(first, len(detections) - 1)
    return detections.boxes[first] + rng.integers(-3, 4, (len(images), 4))


def _embeddings(rng: np.random.Generator, n: int, dimensions: int = DIMENSIONS) -> FloatArray:
    """Multiples of 1/128: every dot product is exact in float32, in any order of summation."""
    return rng.integers(-127, 128, (n, dimensions)).astype(np.float32) / 128
