"""From the heads' output to detections: the best boxes of each image, then suppression of non-maxima."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

from personsearch_core.boxes import Placement
from personsearch_core.models.box_deltas import decode_boxes
from personsearch_core.models.compute import on_device

CANDIDATES_PER_LEVEL = 1000
"""Number of best anchors per pyramid level to decode, as in the reference implementation."""


class Candidates(NamedTuple):
    """The best boxes of each image, by pyramid level: boxes (B, K, 4) in input pixels, scores (B, K).

    finite: () bool, whether all of the heads' logits are.
    """

    boxes: Tensor
    scores: Tensor
    finite: Tensor


class ImageDetections(NamedTuple):
    """People found in one image, best first: boxes (n, 4) in input pixels, scores (n,)."""

    boxes: Tensor
    scores: Tensor


def picture_boxes(placements: Sequence[Placement], images: Tensor) -> Tensor:
    """Where pictures lie on images (B, 3, H, W): (B, 4) float32 on their device; the last may have none."""
    whole = (0, 0, images.shape[-1], images.shape[-2])
    targets = [placement.target for placement in placements]
    rows = torch.tensor([*targets, *[whole] * (len(images) - len(targets))], dtype=torch.float32)
    return on_device(rows, images.device)


def best_candidates(
    logits: Tensor, deltas: Tensor, anchors: Tensor, levels: Sequence[int], pictures: Tensor
) -> Candidates:
    """Decode the best anchors of each level and clip them to the pictures.

    logits: (B, A), deltas: (B, A, 4), anchors: (A, 4), levels: number of anchors in each, pictures: (B, 4).
    Boxes are clipped to the picture and not to the padding around it, as torchvision does: what a box covers
    of the padding would count in its overlaps.
    """
    top_left, bottom_right = pictures[:, None, :2].repeat(1, 1, 2), pictures[:, None, 2:].repeat(1, 1, 2)
    boxes, scores = [], []
    first = 0
    for size in levels:
        level = slice(first, first + size)
        first += size
        best, anchor = torch.sigmoid(logits[:, level].float()).topk(min(CANDIDATES_PER_LEVEL, size), dim=1)
        chosen = deltas[:, level].float().gather(1, anchor[..., None].expand(-1, -1, 4))
        boxes.append(decode_boxes(chosen, anchors[level][anchor]).clamp(top_left, bottom_right))
        scores.append(best)
    return Candidates(torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.isfinite(logits).all())


@torch.no_grad()
def suppress(
    candidates: Candidates,
    images: int,
    *,
    score_threshold: float,
    nms_threshold: float,
    max_per_image: int,
) -> list[ImageDetections]:
    """Suppress what overlaps a better box of the same image by more than `nms_threshold`.

    Of the first `images` images: the best `max_per_image` with scores above the threshold.
    """
    boxes, scores = candidates.boxes[:images], candidates.scores[:images]
    # On a CPU, image by image: there are no launches to save, and fewer pairs to compare.
    suppressed = suppressed_by_image if boxes.device.type == "cpu" else suppressed_at_once
    return [
        ImageDetections(own[:max_per_image], score[:max_per_image])
        for own, score in suppressed(boxes, scores, scores > score_threshold, nms_threshold)
    ]


Suppressed = list[tuple[Tensor, Tensor]]
"""Boxes and scores of each image, best first."""


def suppressed_by_image(boxes: Tensor, scores: Tensor, keep: Tensor, nms_threshold: float) -> Suppressed:
    """Suppression among the boxes (B, K, 4) to `keep` (B, K), one image after another."""
    found = []
    for own, score, kept in zip(boxes, scores, keep, strict=True):
        best = nms(own[kept], score[kept], nms_threshold)
        found.append((own[kept][best], score[kept][best]))
    return found


def suppressed_at_once(boxes: Tensor, scores: Tensor, keep: Tensor, nms_threshold: float) -> Suppressed:
    """The same in one call: images are moved apart so that their boxes do not overlap.

    In double precision, whose rounding of the moved boxes is below that of overlaps in single precision.
    """
    image, place = keep.nonzero(as_tuple=True)
    own, score = boxes[image, place], scores[image, place]
    moved = own.double() + image[:, None] * (boxes.amax().double() + 1)
    best = nms(moved, score.double(), nms_threshold)
    owner, order = image[best].sort(stable=True)
    best, counts = best[order], torch.bincount(owner, minlength=len(boxes)).tolist()
    return [*zip(own[best].split(counts), score[best].split(counts), strict=True)]
