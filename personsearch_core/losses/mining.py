"""Which triplets of a batch count: relations between its rows, and miners."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from personsearch_core.models.compute import is_eager_on_cpu


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
    """Distances of mined triplets: anchor to positive, and anchor to negative, each (T,).

    counted: (T,) which of them are triplets; None if all are. In a graph or on an accelerator, no shape
    depends on the data, and the host waits for nothing.
    """

    positive: Tensor
    negative: Tensor
    counted: Tensor | None = None

    @property
    def violation(self) -> Tensor:
        """(T,) by how much the positive is farther away than the negative; -inf for what is not a triplet."""
        difference = self.positive - self.negative
        return difference if self.counted is None else torch.where(self.counted, difference, -math.inf)

    @property
    def number(self) -> int | Tensor:
        """How many there are, to divide by: at least 1."""
        return max(1, len(self.positive)) if self.counted is None else self.counted.sum().clamp(min=1)


TRIPLES_AT_ONCE = 2**26
"""Triples of rows that are compared at once where shapes do not depend on the data: of some 400 rows."""


def compares_at_once(rows: int) -> bool:
    """Whether semi-hard triplets of that many rows are mined in fixed shapes, outside of an eager CPU."""
    return rows**3 <= TRIPLES_AT_ONCE


def semi_hard_triplets(distances: Tensor, related: Relations) -> Triplets:
    """One triplet per anchor-positive pair: the nearest negative that is farther away than the positive.

    If no negative is farther than the positive, the farthest negative is taken. FaceNet (Schroff et al.
    2015, section 3.2), as in TensorFlow's `triplet_semihard_loss`; as there, equally distant negatives share
    the gradient. Pairs whose anchor has no negative are left out.
    """
    pairs = related.same & related.anchors[:, None]
    if not is_eager_on_cpu(distances) and compares_at_once(len(distances)):
        to_positive, to_all, negative = distances, distances[:, None], related.different[:, None]
        return Triplets(
            to_positive.flatten(), _semi_hard(to_positive, to_all, negative).flatten(), pairs.flatten()
        )
    anchor, positive = pairs.nonzero(as_tuple=True)
    to_positive = distances[anchor, positive]
    return Triplets(to_positive, _semi_hard(to_positive, distances[anchor], related.different[anchor]))


def _semi_hard(to_positive: Tensor, to_all: Tensor, negative: Tensor) -> Tensor:
    """(...) distance to the semi-hard negative, for distances (...) and, broadcast, (..., B)."""
    farther = negative & (to_all > to_positive[..., None])
    nearest_outside = to_all.masked_fill(~farther, math.inf).amin(dim=-1)
    farthest_inside = to_all.masked_fill(~negative, -math.inf).amax(dim=-1)
    return torch.where(farther.any(dim=-1), nearest_outside, farthest_inside)


def batch_hard_triplets(distances: Tensor, related: Relations) -> Triplets:
    """One triplet per anchor: its farthest positive and its nearest negative.

    Hermans et al. 2017, "In Defense of the Triplet Loss for Person Re-Identification", equation 5. Anchors
    without a positive or a negative are left out.
    """
    anchors = related.anchors
    if not is_eager_on_cpu(distances):
        return Triplets(*_batch_hard(distances, related.same, related.different), anchors)
    return Triplets(*_batch_hard(distances[anchors], related.same[anchors], related.different[anchors]))


def _batch_hard(to_all: Tensor, same: Tensor, different: Tensor) -> tuple[Tensor, Tensor]:
    return (
        to_all.masked_fill(~same, -math.inf).max(dim=1).values,
        to_all.masked_fill(~different, math.inf).min(dim=1).values,
    )
