"""Matching and losses image by image, in shapes that depend on the data: the plain way, as a reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from personsearch_core.models.anchors import (
    BACKGROUND,
    BACKGROUND_IOU,
    FOREGROUND_IOU,
    IGNORE_COVER,
    UNDECIDED,
)
from personsearch_core.models.detection_loss import sigmoid_focal_loss
from personsearch_core.models.targets import Targets
from personsearch_core.recipes import DetectionLoss

BOX_CODER = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))


def match(anchors: Tensor, target: Targets) -> Tensor:
    """For each anchor (A, 4): the number of the matched person among the people, BACKGROUND or UNDECIDED."""
    people, regions = target.boxes[~target.ignore], target.boxes[target.ignore]
    matched = torch.full((len(anchors),), BACKGROUND)
    if len(people):
        overlap = box_iou(people, anchors)
        best, own = overlap.max(dim=0)
        matched = torch.where(best < FOREGROUND_IOU, UNDECIDED, own)
        matched = torch.where(best < BACKGROUND_IOU, BACKGROUND, matched)
        for person in overlap:
            matched = torch.where(person == person.max(), own, matched)
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1)
    for region in regions:
        sides = torch.minimum(anchors[:, 2:], region[2:]) - torch.maximum(anchors[:, :2], region[:2])
        inside = sides.clamp(min=0).prod(dim=1) >= IGNORE_COVER * areas
        inside |= box_iou(region[None], anchors)[0] >= BACKGROUND_IOU
        matched = torch.where(inside & (matched == BACKGROUND), UNDECIDED, matched)
    return matched


def losses(
    logits: Tensor, deltas: Tensor, anchors: Tensor, targets: Sequence[Targets], loss: DetectionLoss
) -> tuple[Tensor, Tensor]:
    """(classification, regression), each (B,)."""
    classification, regression = [], []
    for image, target in enumerate(targets):
        matched = match(anchors, target)
        positive = matched >= 0
        count = positive.sum().clamp(min=1)
        focal = sigmoid_focal_loss(logits[image], positive, loss.focal_alpha, loss.focal_gamma)
        classification.append(torch.where(matched == UNDECIDED, 0.0, focal).sum() / count)
        people = target.boxes[~target.ignore]
        wanted = BOX_CODER.encode_single(people[matched[positive]], anchors[positive])
        found = deltas[image, positive]
        if loss.regression == "smooth_l1":
            distance = F.smooth_l1_loss(found, wanted, beta=loss.smooth_l1_beta, reduction="none")
        else:
            distance = F.l1_loss(found, wanted, reduction="none")
        regression.append(distance.sum() / count)
    return torch.stack(classification), torch.stack(regression)
