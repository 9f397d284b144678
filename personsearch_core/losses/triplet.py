"""Triplet losses over a batch: semi-hard (FaceNet) and batch-hard (Hermans et al.)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from personsearch_core.errors import PersonSearchError
from personsearch_core.losses.distances import pairwise_distances
from personsearch_core.losses.mining import (
    Relations,
    Triplets,
    batch_hard_triplets,
    relations,
    semi_hard_triplets,
)

Margin = float | Literal["soft"]
Miner = Callable[[Tensor, Relations], Triplets]


def semi_hard_triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    margin: Margin = 1.0,
    *,
    squared: bool = False,
    unlabelled: Tensor | None = None,
) -> Tensor:
    """Mean over anchor-positive pairs of `max(0, d(a, p) - d(a, n) + margin)`, n semi-hard.

    FaceNet (Schroff et al. 2015) as in TensorFlow's `triplet_semihard_loss`, except that anchors without a
    negative are left out. FaceNet's own setting is `squared=True` on normalised embeddings.

    Parameters
    ----------
    embeddings
        (B, D), not normalised here.
    labels
        (B,) identity of each row.
    margin
        In the units of the distances.
    squared
        Whether distances are squared Euclidean ones.
    unlabelled
        (B,) bool: rows of unknown people, which serve as negatives only.

    Returns
    -------
    Tensor
        Scalar, float32 or wider; 0 if no triplet can be formed.

    Raises
    ------
    PersonSearchError
        If the shapes do not match or the batch is empty.

    Examples
    --------
    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [1.5], [4.0]])
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> round(float(semi_hard_triplet_loss(embeddings, labels)), 4)
    0.75
    """
    return _triplet_loss(embeddings, labels, margin, semi_hard_triplets, squared, unlabelled)


def batch_hard_triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    margin: Margin = "soft",
    *,
    squared: bool = False,
    unlabelled: Tensor | None = None,
) -> Tensor:
    """Mean over anchors of the loss of the farthest positive and the nearest negative in the batch.

    Hermans et al. 2017, equation 5: `log(1 + exp(d(a, p) - d(a, n)))` with the soft margin,
    `max(0, d(a, p) - d(a, n) + margin)` with a number. Anchors without a positive or a negative are left out.

    Parameters
    ----------
    embeddings, labels, squared, unlabelled
        As for `semi_hard_triplet_loss`.
    margin
        `soft`, or a number in the units of the distances.

    Returns
    -------
    Tensor
        Scalar, float32 or wider; 0 if no triplet can be formed.

    Raises
    ------
    PersonSearchError
        If the shapes do not match or the batch is empty.

    Examples
    --------
    >>> import torch
    >>> embeddings, labels = torch.tensor([[0.0], [1.0], [1.5], [4.0]]), torch.tensor([0, 0, 1, 1])
    >>> round(float(batch_hard_triplet_loss(embeddings, labels)), 4)
    1.0123
    """
    return _triplet_loss(embeddings, labels, margin, batch_hard_triplets, squared, unlabelled)


def triplet_margin_loss(triplets: Triplets, margin: Margin) -> Tensor:
    """Mean loss of mined triplets; without triplets 0, with a gradient of 0."""
    violation = triplets.violation
    losses = F.softplus(violation) if margin == "soft" else F.relu(violation + margin)
    return losses.sum() / triplets.number


def active_fraction(triplets: Triplets, margin: Margin) -> Tensor:
    """Fraction of the triplets that still push: a loss above 0 or, with the soft margin, the wrong order."""
    active = triplets.violation.detach() > (0.0 if margin == "soft" else -margin)
    return active.sum() / triplets.number


def _triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    margin: Margin,
    mine: Miner,
    squared: bool,
    unlabelled: Tensor | None,
) -> Tensor:
    check_batch(embeddings, labels)
    distances = pairwise_distances(embeddings, squared=squared)
    return triplet_margin_loss(mine(distances, relations(labels, unlabelled)), margin)


def check_batch(embeddings: Tensor, labels: Tensor) -> None:
    """Raise unless embeddings are (B, D), B > 0, with a label each."""
    if embeddings.ndim != 2 or len(embeddings) == 0 or labels.shape != embeddings.shape[:1]:
        raise PersonSearchError(
            f"embeddings must be (B, D) with B > 0 and labels (B,), not {tuple(embeddings.shape)} with "
            f"{tuple(labels.shape)}"
        )
