"""Focal loss and box regression over a whole batch at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from personsearch_core.models.anchors import UNDECIDED, match_anchors
from personsearch_core.models.box_deltas import encode_boxes
from personsearch_core.models.compute import is_eager_on_cpu
from personsearch_core.models.targets import PaddedTargets
from personsearch_core.recipes import DetectionLoss


def detection_losses(
    logits: Tensor, deltas: Tensor, anchors: Tensor, targets: PaddedTargets, loss: DetectionLoss
) -> tuple[Tensor, Tensor]:
    """(classification, regression), each (B,): per image, the sum over anchors / number of positives.

    logits: (B, A), deltas: (B, A, 4), anchors: (A, 4). Their mean over the batch is what torchvision's
    RetinaNet calls `classification` and `bbox_regression`. Computed in float32. In a graph or on an
    accelerator, no shape depends on the data, and the host waits for nothing.
    """
    logits, deltas = logits.float(), deltas.float()
    matched = match_anchors(anchors, targets)
    positive = matched >= 0
    positives = positive.sum(dim=1).clamp(min=1)
    focal = sigmoid_focal_loss(logits, positive, loss.focal_alpha, loss.focal_gamma)
    classification = torch.where(matched == UNDECIDED, 0.0, focal).sum(dim=1) / positives

    if is_eager_on_cpu(logits):
        # By the matched anchors alone: few, and in an order that keeps the bits of earlier trainings.
        image, anchor = torch.nonzero(positive, as_tuple=True)
        wanted = encode_boxes(targets.people[image, matched[image, anchor]], anchors[anchor])
        distance = _distances(deltas[image, anchor], wanted, loss)
        return classification, torch.zeros_like(classification).index_add(0, image, distance) / positives
    # An anchor without a person has its wanted deltas: no loss, no gradient, and no NaN.
    chosen, mask = matched.clamp(min=0)[..., None].expand(-1, -1, 4), positive[..., None]
    wanted = encode_boxes(torch.where(mask, targets.people.gather(1, chosen), anchors), anchors)
    distance = _distances(torch.where(mask, deltas, wanted), wanted, loss)
    return classification, distance.sum(dim=1) / positives


def _distances(found: Tensor, wanted: Tensor, loss: DetectionLoss) -> Tensor:
    """Loss of each box's four deltas: (..., 4) -> (...)."""
    if loss.regression == "smooth_l1":
        return F.smooth_l1_loss(found, wanted, beta=loss.smooth_l1_beta, reduction="none").sum(dim=-1)
    return F.l1_loss(found, wanted, reduction="none").sum(dim=-1)


def sigmoid_focal_loss(logits: Tensor, positive: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss of each logit (Lin et al. 2017, equation 5): -alpha_t (1 - p_t)^gamma log p_t.

    positive: bool of the logits' shape. With s = +1 for positives and -1 for the rest, p_t = sigmoid(s x).
    """
    signed = torch.where(positive, logits, -logits)
    weight = torch.where(positive, alpha, 1.0 - alpha)
    return weight * torch.sigmoid(-signed) ** gamma * -F.logsigmoid(signed)
