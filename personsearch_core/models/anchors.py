"""Which anchor matches which person, with ignore regions, as RetinaNet trains."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator

from personsearch_core.models.compute import is_eager_on_cpu
from personsearch_core.models.targets import PaddedTargets
from personsearch_core.recipes import DetectorModel

BACKGROUND = Matcher.BELOW_LOW_THRESHOLD
UNDECIDED = Matcher.BETWEEN_THRESHOLDS

FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.4
"""Lin et al. 2017, section 4: positive from 0.5, negative below 0.4, undecided in between."""

IGNORE_COVER = 0.5
"""An anchor with this fraction of its area inside an ignore region is not a negative."""

PAIRS_AT_ONCE = 2**25
"""Pairs of box and anchor compared at once; each temporary takes four bytes per pair."""

SCALES_PER_OCTAVE = (1.0, 2.0 ** (1.0 / 3), 2.0 ** (2.0 / 3))


class AnchorGrid:
    """All anchors of an input size, computed once per size and device.

    Three scales x the recipe's ratios in each cell of P3..P7, rounded and spaced as torchvision's RetinaNet
    does (its strides are whole quotients of the sizes, which matters where 128 does not divide the input).
    """

    def __init__(self, model: DetectorModel) -> None:
        sizes = tuple(tuple(int(size * scale) for scale in SCALES_PER_OCTAVE) for size in model.anchor_sizes)
        self._generator = AnchorGenerator(sizes, (model.anchor_ratios,) * len(sizes))
        self._grids: dict[tuple[int, int, torch.device], Tensor] = {}
        self.per_cell = self._generator.num_anchors_per_location()[0]

    def levels(self, height: int, width: int) -> tuple[int, ...]:
        """Number of anchors in P3..P7 for an input of this size."""
        return tuple(rows * columns * self.per_cell for rows, columns in level_sizes(height, width))

    def anchors(self, height: int, width: int, device: torch.device) -> Tensor:
        """(A, 4) float32 in input pixels: by level, row, column, then shape."""
        key = (height, width, device)
        if key not in self._grids:
            sizes = level_sizes(height, width)
            strides = [
                [torch.tensor(height // rows, device=device), torch.tensor(width // columns, device=device)]
                for rows, columns in sizes
            ]
            self._generator.set_cell_anchors(torch.float32, device)
            self._grids[key] = torch.cat(
                self._generator.grid_anchors([list(size) for size in sizes], strides)
            )
        return self._grids[key]


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(rows, columns) of P3..P7; each stride-2 step of the network rounds up."""
    return [(-(-height // stride), -(-width // stride)) for stride in (8, 16, 32, 64, 128)]


@torch.no_grad()
def match_anchors(anchors: Tensor, targets: PaddedTargets) -> Tensor:
    """For each image and anchor: the place of the matched person, BACKGROUND or UNDECIDED.

    anchors: (A, 4); returns int64 (B, A). A person's best anchor is always matched, however low its overlap.
    Ignore regions match nothing; anchors inside one (IGNORE_COVER of their area, or an IoU of BACKGROUND_IOU)
    are UNDECIDED unless a person claims them.
    """
    images, people = targets.is_person.shape
    if is_eager_on_cpu(anchors):
        parts = [_without_padding(targets, image) for image in range(images)]
    else:
        size = max(1, PAIRS_AT_ONCE // (len(anchors) * max(people, targets.regions.shape[1])))
        cuts = range(0, images, size)
        parts = [PaddedTargets(*(rows[first : first + size] for rows in targets)) for first in cuts]
    return torch.cat([_match(anchors, part) for part in parts])


def _without_padding(targets: PaddedTargets, image: int) -> PaddedTargets:
    """One image's targets in as many places as it needs; at least one is for people."""
    one = slice(image, image + 1)
    people = max(1, int(targets.is_person[image].sum()))
    regions = int(targets.is_region[image].sum())
    return PaddedTargets(
        targets.people[one, :people],
        targets.is_person[one, :people],
        targets.regions[one, :regions],
        targets.is_region[one, :regions],
    )


def _match(anchors: Tensor, targets: PaddedTargets) -> Tensor:
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1)
    overlap = _overlaps(anchors, areas, targets.people)[1]
    # The first of equal ones, which is never padding: its overlap is zero, and it comes last.
    best, own = overlap.max(dim=1)
    matched = torch.where(best < FOREGROUND_IOU, UNDECIDED, own)
    matched = torch.where(best < BACKGROUND_IOU, BACKGROUND, matched)
    persons_best = torch.where(targets.is_person, overlap.amax(dim=2), math.inf)
    claimed = (overlap == persons_best[..., None]).any(dim=1)
    matched = torch.where(claimed, own, matched)
    if not targets.regions.shape[1]:
        return matched
    shared, overlap = _overlaps(anchors, areas, targets.regions)
    covers = (shared >= IGNORE_COVER * areas) | (overlap >= BACKGROUND_IOU)
    return torch.where((matched == BACKGROUND) & covers.any(dim=1), UNDECIDED, matched)


def _overlaps(anchors: Tensor, areas: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Shared area and IoU of boxes (B, M, 4) with anchors (A, 4), each (B, M, A); zero for padding."""
    # Coordinate by coordinate, so that each pass reads and writes numbers that follow each other.
    ax1, ay1, ax2, ay2 = anchors.t().contiguous()
    x1, y1, x2, y2 = boxes[..., None].unbind(dim=2)
    width = torch.minimum(ax2, x2).sub_(torch.maximum(ax1, x1)).clamp_(min=0)
    height = torch.minimum(ay2, y2).sub_(torch.maximum(ay1, y1)).clamp_(min=0)
    shared = width.mul_(height)
    union = ((x2 - x1) * (y2 - y1) + areas).sub_(shared)
    return shared, shared / union
