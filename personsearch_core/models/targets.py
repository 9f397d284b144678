"""What a detector is trained to find: per image, and padded to one size for a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FEWEST_PLACES = 16
GROWTH = 4


class Targets(NamedTuple):
    """The people of one training image, in pixels of the network's input.

    boxes: (n, 4) float32 with positive areas. ignore: (n,) bool. people: (n,) int64, the label of each box's
    identity or `UNLABELLED`; None if identities are not learnt from this image.
    """

    boxes: Tensor
    ignore: Tensor
    people: Tensor | None = None


class PaddedTargets(NamedTuple):
    """The targets of a batch, in tensors whose sizes take few values: each size is compiled separately.

    people: (B, P, 4) and regions: (B, R, 4) float32, the boxes of the people and the ignore regions, in order
    and followed by padding, which is zero. is_person: (B, P) and is_region: (B, R) bool, false for padding.
    """

    people: Tensor
    is_person: Tensor
    regions: Tensor
    is_region: Tensor

    def to(self, device: torch.device) -> PaddedTargets:
        return PaddedTargets(*(part.to(device, non_blocking=True) for part in self))


def pad_targets(targets: Sequence[Targets], *, pin: bool = False) -> PaddedTargets:
    """Pad the boxes of each image to the places that its batch needs; none is dropped.

    pin: into pinned memory, for copies that do not wait.
    """
    people = [each.boxes[~each.ignore] for each in targets]
    regions = [each.boxes[each.ignore] for each in targets]
    return PaddedTargets(*_padded(people, FEWEST_PLACES, pin), *_padded(regions, 0, pin))


def places(most: int) -> int:
    """How many places `most` boxes are padded to: 16, 64, 256 ..."""
    size = FEWEST_PLACES
    while size < most:
        size *= GROWTH
    return size


def _padded(rows: Sequence[Tensor], fewest: int, pin: bool) -> tuple[Tensor, Tensor]:
    most = max(len(own) for own in rows)
    size = places(most) if most else fewest
    boxes = torch.zeros((len(rows), size, 4), pin_memory=pin)
    real = torch.zeros((len(rows), size), dtype=torch.bool, pin_memory=pin)
    for place, flags, own in zip(boxes, real, rows, strict=True):
        place[: len(own)] = own
        flags[: len(own)] = True
    return boxes, real
