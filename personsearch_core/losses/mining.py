"""Which triplets of a batch count: relations between its rows, and miners."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Relations:
    """How rows of a batch relate: two (B, B) masks, anchors along the rows.

    same: another row of the anchor's identity. different: a row of another identity, or an unlabelled one.
    Unlabelled rows are neither positives nor anchors: they are taken to be other people than the labelled
    ones, and nothing else is known about them.
    """

    same: Tensor
    different: Tensor

    @property
    def anchors(self) -> Tensor:
        """(B,) mask of the rows that have both a positive and a negative."""
        return self.same.any(dim=1) & self.different.any(dim=1)


def relations(labels: Tensor, unlabelled: Tensor | None = None) -> Relations:
    """Relations by labels (B,); rows where the mask `unlabelled` (B,) is set have no identity."""
    equal = labels[:, None] == labels[None, :]
    if unlabelled is None:
        unlabelled = torch.zeros_like(labels, dtype=torch.bool)
    labelled = ~unlabelled
    both_labelled = labelled[:, None] & labelled[None, :]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return Relations(
        same=equal & both_labelled & ~itself,
        different=labelled[:, None] & ~(equal & both_labelled),
    )


@dataclass(frozen=True)
class Triplets:
    """Distances of mined triplets: anchor to positive, and anchor to negative, each (T,)."""

    positive: Tensor
    negative: Tensor


def semi_hard_triplets(distances: Tensor, related: Relations) -> Triplets:
    """One triplet per anchor-positive pair: the nearest negative that is farther away than the positive.

    If no negative is farther than the positive, the farthest negative is taken. FaceNet (Schroff et al.
    2015, section 3.2), as in TensorFlow's `triplet_semihard_loss`; as there, equally distant negatives share
    the gradient. Pairs whose anchor has no negative are left out.
    """
    anchor, positive = (related.same & related.anchors[:, None]).nonzero(as_tuple=True)
    to_positive = distances[anchor, positive]
    to_all = distances[anchor]
    negative = related.different[anchor]
    farther = negative & (to_all > to_positive[:, None])
    nearest_outside = to_all.masked_fill(~farther, math.inf).amin(dim=1)
    farthest_inside = to_all.masked_fill(~negative, -math.inf).amax(dim=1)
    return Triplets(to_positive, torch.where(farther.any(dim=1), nearest_outside, farthest_inside))


def batch_hard_triplets(distances: Tensor, related: Relations) -> Triplets:
    """One triplet per anchor: its farthest positive and its nearest negative.

    Hermans et al. 2017, "In Defense of the Triplet Loss for Person Re-Identification", equation 5. Anchors
    without a positive or a negative are left out.
    """
    anchors = related.anchors
    to_all = distances[anchors]
    return Triplets(
        positive=to_all.masked_fill(~related.same[anchors], -math.inf).max(dim=1).values,
        negative=to_all.masked_fill(~related.different[anchors], math.inf).min(dim=1).values,
    )
