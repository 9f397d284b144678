"""Detections grouped by image, overlaps, and matches of detections to ground-truth boxes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.records import Detections, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class GroupedDetections:
    """Detections ordered by (group of the image, image).

    `row` (n,) gives their rows in the input. Image i's detections are `image_starts[i]:image_stops[i]`,
    those of group g `group_starts[g]:group_starts[g + 1]`. Detection i's embedding is `pool[column[i]]`, or
    `pool[i]` if `column` is None: galleries of several settings share a pool, and `whole` is all of it.
    """

    row: IntArray
    boxes: FloatArray
    scores: FloatArray
    image: IntArray
    image_starts: IntArray
    image_stops: IntArray
    group_starts: IntArray
    pool: FloatArray
    column: IntArray | None = None
    whole: GroupedDetections | None = None

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def embeddings(self) -> FloatArray:
        """(n, d), in the order of the detections."""
        return self.pool if self.column is None else self.pool[self.column]

    def of_images(self, images: IntArray) -> tuple[IntArray, IntArray]:
        """The detections of images (n,) in turn: (which of the images, place), both (detections,)."""
        starts = self.image_starts[images]
        return expand_ranges(starts, self.image_stops[images] - starts)

    def select(self, places: IntArray) -> GroupedDetections:
        """The detections at `places`, ascending, over the same pool."""
        if len(places) == len(self):
            return self
        return GroupedDetections(
            row=self.row[places],
            boxes=self.boxes[places],
            scores=self.scores[places],
            image=self.image[places],
            image_starts=np.searchsorted(places, self.image_starts),
            image_stops=np.searchsorted(places, self.image_stops),
            group_starts=np.searchsorted(places, self.group_starts),
            pool=self.pool,
            column=places if self.column is None else self.column[places],
            whole=self if self.whole is None else self.whole,
        )


def keep_by_score(detections: Detections, score_threshold: float | None) -> IntArray:
    """Rows with `score >= score_threshold`, in order; all rows if the threshold is None."""
    if score_threshold is None:
        return np.arange(len(detections))
    return np.flatnonzero(detections.scores >= score_threshold)


def group_by_image(detections: Detections, rows: IntArray, image_group: IntArray) -> GroupedDetections:
    """The given rows of `detections`, grouped by image, with images grouped by `image_group` (n_images,).

    The order of the input only affects `row`, as far as box and score tell rows apart.
    """
    image, n_images = detections.image[rows], len(image_group)
    if len(image) and image.max() >= n_images:
        raise PersonSearchError(f"detections: image {image.max()} is outside the {n_images} images")
    group = image_group[image]
    boxes, scores = detections.boxes[rows], detections.scores[rows]
    order = np.lexsort((*boxes.T[::-1], -scores, image, group))
    rows, image, group = rows[order], image[order], group[order]
    in_order = len(rows) == len(detections) and np.array_equal(rows, np.arange(len(rows)))
    counts = np.bincount(image, minlength=n_images)
    starts = np.zeros(n_images, np.int64)
    first = np.flatnonzero(np.diff(image, prepend=-1))
    starts[image[first]] = first
    return GroupedDetections(
        row=rows,
        boxes=boxes[order].astype(np.float64),
        scores=scores[order],
        image=image,
        image_starts=starts,
        image_stops=starts + counts,
        group_starts=np.searchsorted(group, np.arange(image_group.max(initial=-1) + 2)),
        pool=detections.embeddings if in_order else detections.embeddings[rows],
    )


def iou(first: FloatArray, second: FloatArray, extra: float = 0.0) -> FloatArray:
    """Intersection over union of boxes row by row, (n, 4) and (n, 4) -> (n,).

    `extra` is added to every width and height: 1 if x2 and y2 are inclusive ("+1"). Empty boxes have an
    overlap of 0.
    """
    first, second = first.astype(np.float64, copy=False), second.astype(np.float64, copy=False)
    shared = shared_area(first, second, extra)
    union = area(first, extra) + area(second, extra) - shared
    overlaps: FloatArray = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    return overlaps


def shared_area(first: FloatArray, second: FloatArray, extra: float = 0.0) -> FloatArray:
    """Area of the intersection of boxes row by row, (n, 4) and (n, 4) -> (n,); `extra` as in `iou`."""
    width = np.minimum(first[:, 2], second[:, 2]) - np.maximum(first[:, 0], second[:, 0]) + extra
    height = np.minimum(first[:, 3], second[:, 3]) - np.maximum(first[:, 1], second[:, 1]) + extra
    shared: FloatArray = np.maximum(width, 0) * np.maximum(height, 0)
    return shared


def area(boxes: FloatArray, extra: float = 0.0) -> FloatArray:
    """Areas of boxes (n, 4) in square pixels -> (n,)."""
    return (boxes[:, 2] - boxes[:, 0] + extra) * (boxes[:, 3] - boxes[:, 1] + extra)


def match_threshold(boxes: FloatArray) -> FloatArray:
    """Minimum IoU of a match with each ground-truth box (n, 4): min(0.5, wh / ((w + 10)(h + 10)))."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return np.minimum(0.5, width * height / ((width + 10) * (height + 10)))


def matching_detections(
    gallery: GroupedDetections, truth_image: IntArray, truth_boxes: FloatArray
) -> tuple[IntArray, IntArray]:
    """All pairs (truth, detection) in one image that match by `match_threshold`, ordered by truth.

    `truth_image` (t,), `truth_boxes` (t, 4). Returns two index arrays of equal length.
    """
    truth, detection = gallery.of_images(truth_image)
    overlaps = iou(gallery.boxes[detection], truth_boxes[truth])
    matches = overlaps >= match_threshold(truth_boxes.astype(np.float64))[truth]
    return truth[matches], detection[matches]


def equal_pairs(values: IntArray, ordered: IntArray) -> tuple[IntArray, IntArray]:
    """Places in `values` (n,) and in the ascending `ordered` (m,) of all pairs of equal numbers, in order."""
    starts = np.searchsorted(ordered, values, side="left")
    return expand_ranges(starts, np.searchsorted(ordered, values, side="right") - starts)


def expand_ranges(starts: IntArray, counts: IntArray) -> tuple[IntArray, IntArray]:
    """Ranges written out: (which range, element), both of length `counts.sum()`, ordered by range."""
    owner = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) + np.repeat(starts - before, counts)
