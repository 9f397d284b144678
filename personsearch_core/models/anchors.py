"""Which anchor matches which person, with ignore regions, as RetinaNet trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator

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


class Targets(NamedTuple):
    """The people of one training image, in pixels of the network's input.

    boxes: (n, 4) float32 with positive areas. ignore: (n,) bool. people: (n,) int64, the label of each box's
    identity or `UNLABELLED`; None if identities are not learnt from this image.
    """

    boxes: Tensor
    ignore: Tensor
    people: Tensor | None = None

    def to(self, device: torch.device) -> Targets:
        moved = (part if part is None else part.to(device, non_blocking=True) for part in self)
        return Targets(*moved)  # type: ignore[arg-type]


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
def match_anchors(anchors: Tensor, targets: Sequence[Targets]) -> Tensor:
    """For each image and anchor: the row of the matched box in its targets, BACKGROUND or UNDECIDED.

    anchors: (A, 4); returns int64 (B, A). A person's best anchor is always matched, however low its overlap.
    Ignore regions match nothing; anchors inside one (IGNORE_COVER of their area, or an IoU of BACKGROUND_IOU)
    are UNDECIDED unless a person claims them.

    On an accelerator several images are matched at once, without making the host wait.
    """
    if anchors.device.type == "cpu":
        # No launches to save, and padding would cost work.
        return torch.cat([_match(anchors, [each]) for each in targets])
    most = max(len(each.boxes) for each in targets)
    images = max(1, PAIRS_AT_ONCE // (max(1, most) * len(anchors)))
    parts = (targets[first : first + images] for first in range(0, len(targets), images))
    return torch.cat([_match(anchors, part) for part in parts])


def _match(anchors: Tensor, targets: Sequence[Targets]) -> Tensor:
    """Boxes are padded to (B, M, 4); padding is neither a person nor an ignore region."""
    if not any(len(each.boxes) for each in targets):
        shape = (len(targets), len(anchors))
        return torch.full(shape, BACKGROUND, dtype=torch.int64, device=anchors.device)
    boxes = pad_sequence([each.boxes for each in targets], batch_first=True)
    person = pad_sequence([~each.ignore for each in targets], batch_first=True)
    ignore = pad_sequence([each.ignore for each in targets], batch_first=True)
    top_left = torch.maximum(anchors[:, :2], boxes[:, :, None, :2])
    sides = torch.minimum(anchors[:, 2:], boxes[:, :, None, 2:]).sub_(top_left).clamp_(min=0)
    shared = sides[..., 0] * sides[..., 1]
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1)
    overlap = shared / ((boxes[..., 2:] - boxes[..., :2]).prod(dim=2)[..., None] + areas - shared)

    with_people = torch.where(person[..., None], overlap, -1.0)
    best, own = with_people.max(dim=1)
    matched = torch.where(best < FOREGROUND_IOU, UNDECIDED, own)
    matched = torch.where(best < BACKGROUND_IOU, BACKGROUND, matched)
    persons_best = with_people.amax(dim=2, keepdim=True)
    claimed = ((with_people == persons_best) & person[..., None]).any(dim=1)
    matched = torch.where(claimed, own, matched)

    covers = (shared >= IGNORE_COVER * areas) | (overlap >= BACKGROUND_IOU)
    ignored = (covers & ignore[..., None]).any(dim=1)
    return torch.where((matched == BACKGROUND) & ignored, UNDECIDED, matched)
