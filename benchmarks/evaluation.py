"""How much quicker the evaluators are than a plain implementation of the same rules.

The plain one loops over the gallery's images for each query: one product for each image, vectorised inside
the image, and scikit-learn's average precision over the whole ranking. Equal numbers are checked before times
are compared.

    python -m benchmarks.evaluation [--plain-queries 40] [--json OUT]

Run it with one BLAS thread (OPENBLAS_NUM_THREADS=1); times are CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from personsearch_core.evaluation.cuhk_sysu import evaluate_cuhk_sysu
from personsearch_core.evaluation.prw import evaluate_prw
from personsearch_core.evaluation.records import (
    Detections,
    FloatArray,
    GalleryLists,
    GroundTruth,
    IntArray,
    Queries,
)

DIMENSIONS = 256
ByImage = dict[int, tuple[FloatArray, FloatArray]]
"""Boxes and embeddings of the kept detections of each image that has any."""


def plain_cuhk_sysu(
    detections: Detections, queries: Queries, lists: GalleryLists, score_threshold: float = 0.5
) -> list[tuple[float, int]]:
    """(AP, rank of the first positive or 0) of each query that `queries` has."""
    by_image = _by_image(detections, score_threshold)
    outcomes = []
    for query in range(len(queries)):
        rows = range(lists.offsets[query], lists.offsets[query + 1])
        truths = [lists.boxes[row] if lists.is_positive[row] else None for row in rows]
        images = [int(lists.image[row]) for row in rows]
        n_truths = sum(truth is not None for truth in truths)
        gallery: dict[int, FloatArray | None] = {}
        for image, truth in zip(images, truths, strict=True):
            gallery.setdefault(image, truth)
        outcomes.append(_rank(by_image, gallery, queries.embeddings[query], n_truths))
    return outcomes


def plain_prw(
    detections: Detections,
    queries: Queries,
    truth: GroundTruth,
    cameras: IntArray,
    *,
    cross_camera: bool = False,
    score_threshold: float = 0.5,
) -> list[tuple[float, int]]:
    """(AP, rank of the first positive or 0) of each query."""
    by_image = _by_image(detections, score_threshold)
    boxes: dict[tuple[int, int], FloatArray] = {}
    for image, box, person in zip(truth.image, truth.boxes.astype(np.float64), truth.person, strict=True):
        width, height = box[2:] - box[:2]
        x, y = max(box[0], 0.0), max(box[1], 0.0)
        boxes.setdefault((int(image), int(person)), np.trunc([x, y, x + width, y + height]))
    outcomes = []
    for image, person, embedding in zip(queries.image, queries.people(), queries.embeddings, strict=True):
        gallery = {
            other: boxes.get((other, int(person)))
            for other in range(len(cameras))
            if other != image and not (cross_camera and cameras[other] == cameras[image])
        }
        n_truths = sum(box is not None for box in gallery.values())
        outcomes.append(_rank(by_image, gallery, embedding, n_truths))
    return outcomes


def _by_image(detections: Detections, score_threshold: float) -> ByImage:
    rows: dict[int, list[int]] = {}
    for row, (image, score) in enumerate(zip(detections.image, detections.scores, strict=True)):
        if score >= score_threshold:
            rows.setdefault(int(image), []).append(row)
    return {i: (detections.boxes[r].astype(np.float64), detections.embeddings[r]) for i, r in rows.items()}


def _rank(
    by_image: ByImage, gallery: dict[int, FloatArray | None], embedding: FloatArray, n_truths: int
) -> tuple[float, int]:
    similarities: list[float] = []
    labels: list[bool] = []
    for image, truth in gallery.items():
        if image not in by_image:
            continue
        boxes, embeddings = by_image[image]
        similarity = embeddings @ embedding
        label = np.zeros(len(similarity), bool)
        if truth is not None:
            matches = np.flatnonzero(_overlap(boxes, truth) >= _wanted_overlap(truth))
            if len(matches):
                label[matches[similarity[matches].argmax()]] = True
        similarities.extend(similarity.tolist())
        labels.extend(label.tolist())
    if not any(labels):
        return 0.0, 0
    recall = sum(labels) / n_truths
    # A positive comes last among its ties.
    order = np.lexsort((np.array(labels), -np.array(similarities)))
    rank = int(np.array(labels)[order].argmax()) + 1
    return float(average_precision_score(labels, similarities)) * recall, rank


def _overlap(boxes: FloatArray, truth: FloatArray) -> FloatArray:
    sides = np.minimum(boxes[:, 2:], truth[2:]) - np.maximum(boxes[:, :2], truth[:2])
    intersection = np.maximum(sides, 0).prod(axis=1)
    return intersection / (
        (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (truth[2:] - truth[:2]).prod() - intersection
    )


def _wanted_overlap(truth: FloatArray) -> float:
    width, height = truth[2:] - truth[:2]
    return min(0.5, width * height / ((width + 10) * (height + 10)))


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
    """A problem of the size of PRW's test set, or as many times larger as `n_images` and `n_detections`."""
    image = np.sort(rng.integers(0, n_images, n_detections))
    detections = _random_detections(rng, image, dimensions)
    shown = rng.choice(n_detections, int(0.6 * n_detections), replace=False)
    boxes = detections.boxes[shown] + rng.integers(-3, 4, (len(shown), 4)).astype(np.float32)
    truth = GroundTruth(detections.image[shown], boxes, rng.integers(0, 544, len(shown)))
    chosen = rng.choice(len(shown), n_queries, replace=False)
    embeddings = _embeddings(rng, n_queries, dimensions)
    queries = Queries(truth.image[chosen], boxes[chosen], embeddings, truth.person[chosen])
    return detections, queries, truth, rng.integers(1, 7, n_images)


def _random_detections(rng: np.random.Generator, image: IntArray, dimensions: int = DIMENSIONS) -> Detections:
    scores = rng.uniform(0.5, 1, len(image)).astype(np.float32)
    return Detections(image, _random_boxes(rng, len(image)), scores, _embeddings(rng, len(image), dimensions))


def _random_boxes(rng: np.random.Generator, n: int) -> FloatArray:
    corner, size = rng.integers(0, 800, (n, 2)), rng.integers(40, 200, (n, 2))
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def _boxes_in(rng: np.random.Generator, detections: Detections, images: IntArray) -> FloatArray:
    """For each image the box of one of its detections, or any box where it has none."""
    first = np.searchsorted(detections.image, images)
    first = np.minimum(first, len(detections) - 1)
    return detections.boxes[first] + rng.integers(-3, 4, (len(images), 4))


def _embeddings(rng: np.random.Generator, n: int, dimensions: int = DIMENSIONS) -> FloatArray:
    """Multiples of 1/128: every dot product is exact in float32, in any order of summation."""
    return rng.integers(-127, 128, (n, dimensions)).astype(np.float32) / 128


def _first_queries(queries: Queries, n: int) -> Queries:
    person = None if queries.person is None else queries.person[:n]
    return Queries(queries.image[:n], queries.boxes[:n], queries.embeddings[:n], person)


def _first_lists(lists: GalleryLists, n: int) -> GalleryLists:
    rows = slice(0, lists.offsets[n])
    return GalleryLists(lists.offsets[: n + 1], lists.image[rows], lists.is_positive[rows], lists.boxes[rows])


def measure(plain_queries: int, repeats: int = 3) -> Iterator[dict[str, object]]:
    """CPU seconds of both for each protocol; the plain one's are scaled up from its first queries."""
    rng = np.random.default_rng(0)
    found, queries, lists = cuhk_sysu_like(rng)
    few = _first_queries(queries, plain_queries * 10)
    yield _compare(
        "CUHK-SYSU G100",
        lambda: evaluate_cuhk_sysu(found, queries, lists).ap,
        lambda: plain_cuhk_sysu(found, few, _first_lists(lists, len(few))),
        len(queries),
        repeats,
    )
    found, queries, truth, cameras = prw_like(rng)
    fewer = _first_queries(queries, plain_queries)
    yield _compare(
        "PRW test set",
        lambda: evaluate_prw(found, queries, truth, cameras).ap,
        lambda: plain_prw(found, fewer, truth, cameras),
        len(queries),
        repeats,
    )


def _compare(
    name: str,
    evaluate: Callable[[], FloatArray],
    plain: Callable[[], list[tuple[float, int]]],
    n_queries: int,
    repeats: int,
) -> dict[str, object]:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        ap = evaluate()
        seconds.append(time.process_time() - start)
    start = time.process_time()
    outcomes = plain()
    scale = n_queries / len(outcomes)
    plain_seconds = (time.process_time() - start) * scale
    difference = float(np.abs(ap[: len(outcomes)] - [value for value, _ in outcomes]).max())
    if difference > 1e-9:
        raise SystemExit(f"{name}: the two implementations differ by {difference} in AP")
    return {
        "protocol": name,
        "seconds": float(np.median(seconds)),
        "plain_seconds": plain_seconds,
        "ratio": plain_seconds / float(np.median(seconds)),
        "largest_difference": difference,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--plain-queries", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for row in measure(arguments.plain_queries):
        rows.append(row)
        print(json.dumps(row))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
