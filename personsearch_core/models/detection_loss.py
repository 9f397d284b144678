"""Focal loss and box regression over a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from personsearch_core.models.anchors import UNDECIDED, Targets, match_anchors
from personsearch_core.recipes import DetectionLoss

BOX_CODER = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))


def detection_losses(
    logits: Tensor, deltas: Tensor, anchors: Tensor, targets: Sequence[Targets], loss: DetectionLoss
) -> tuple[Tensor, Tensor]:
    """(classification, regression), each (B,): per image, the sum over anchors / number of positives.

    logits: (B, A), deltas: (B, A, 4), anchors: (A, 4). Their mean over the batch is what torchvision's
    RetinaNet calls `classification` and `bbox_regression`. Computed in float32.
    """
    logits, deltas = logits.float(), deltas.float()
    matched = match_anchors(anchors, targets)
    positive = matched >= 0
    positives = positive.sum(dim=1).clamp(min=1)
    focal = sigmoid_focal_loss(logits, positive, loss.focal_alpha, loss.focal_gamma)
    classification = torch.where(matched == UNDECIDED, 0.0, focal).sum(dim=1) / positives

    image, anchor = torch.nonzero(positive, as_tuple=True)
    boxes = torch.cat([target.boxes for target in targets])
    counts = [0, *(len(target.boxes) for target in targets[:-1])]
    first = torch.tensor(counts, device=matched.device).cumsum(0)
    wanted = BOX_CODER.encode_single(boxes[first[image] + matched[image, anchor]], anchors[anchor])
    found = deltas[image, anchor]
    if loss.regression == "smooth_l1":
        distance = F.smooth_l1_loss(found, wanted, beta=loss.smooth_l1_beta, reduction="none")
    else:
        distance = F.l1_loss(found, wanted, reduction="none")
    regression = torch.zeros_like(classification).index_add(0, image, distance.sum(dim=1)) / positives
    return classification, regression


def sigmoid_focal_loss(logits: Tensor, positive: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss of each logit (Lin et al. 2017, equation 5): -alpha_t (1 - p_t)^gamma log p_t.

    positive: bool of the logits' shape. With s = +1 for positives and -1 for the rest, p_t = sigmoid(s x).
    """
    signed = torch.where(positive, logits, -logits)
    weight = torch.where(positive, alpha, 1.0 - alpha)
    return weight * torch.sigmoid(-signed) ** gamma * -F.logsigmoid(signed)
