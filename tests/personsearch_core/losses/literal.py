"""Losses written out loop by loop, or as their source has them; slow, plain, and only for comparison."""

from __future__ import annotations

import torch
from torch import Tensor


def tensorflow_semi_hard(embeddings: Tensor, labels: Tensor, margin: float, squared: bool) -> Tensor:
    """TensorFlow's `triplet_semihard_loss`, operation by operation, in torch."""
    batch = len(labels)
    square = embeddings.square().sum(dim=1)
    pdist = (square[:, None] + square[None, :] - 2 * embeddings @ embeddings.T).clamp(min=0)
    if not squared:
        error = pdist <= 0
        pdist = torch.sqrt(pdist + error * 1e-16) * ~error
    pdist = pdist * ~torch.eye(batch, dtype=torch.bool)
    adjacency = labels[:, None] == labels[None, :]
    not_adjacent = ~adjacency
    tile = pdist.repeat(batch, 1)
    mask = not_adjacent.repeat(batch, 1) & (tile > pdist.T.reshape(-1, 1))
    mask_final = (mask.sum(dim=1, keepdim=True) > 0).reshape(batch, batch).T
    axis_maximum = tile.amax(dim=1, keepdim=True)
    outside = ((tile - axis_maximum) * mask).amin(dim=1, keepdim=True) + axis_maximum
    outside = outside.reshape(batch, batch).T
    axis_minimum = pdist.amin(dim=1, keepdim=True)
    inside = ((pdist - axis_minimum) * not_adjacent).amax(dim=1, keepdim=True) + axis_minimum
    semi_hard = torch.where(mask_final, outside, inside.repeat(1, batch))
    positives = adjacency.to(pdist.dtype) - torch.eye(batch, dtype=pdist.dtype)
    losses = torch.relu((margin + pdist - semi_hard) * positives)
    return losses.sum() / positives.sum()


def distance(a: Tensor, b: Tensor, squared: bool) -> Tensor:
    square = (a - b).square().sum()
    if squared:
        return square
    return square.sqrt() if square > 0 else square * 0


def loop_semi_hard(embeddings: Tensor, labels: Tensor, margin: float, squared: bool = False) -> Tensor:
    """The words of the definition as loops; anchors without a positive or a negative are left out."""
    losses = []
    rows = range(len(labels))
    for a in rows:
        negatives = [distance(embeddings[a], embeddings[n], squared) for n in rows if labels[n] != labels[a]]
        for p in rows:
            if p == a or labels[p] != labels[a] or not negatives:
                continue
            to_positive = distance(embeddings[a], embeddings[p], squared)
            outside = [negative for negative in negatives if negative > to_positive]
            negative = min(outside) if outside else max(negatives)
            losses.append(torch.relu(to_positive - negative + margin))
    return torch.stack(losses).mean() if losses else embeddings.sum() * 0


def loop_batch_hard(embeddings: Tensor, labels: Tensor, margin: float | str, squared: bool = False) -> Tensor:
    """Equation 5 of Hermans et al. as loops; anchors without a positive or a negative are left out."""
    losses = []
    rows = range(len(labels))
    for a in rows:
        positives = [
            distance(embeddings[a], embeddings[p], squared) for p in rows if p != a and labels[p] == labels[a]
        ]
        negatives = [distance(embeddings[a], embeddings[n], squared) for n in rows if labels[n] != labels[a]]
        if positives and negatives:
            violation = max(positives) - min(negatives)
            losses.append(
                torch.log1p(violation.exp()) if isinstance(margin, str) else torch.relu(violation + margin)
            )
    return torch.stack(losses).mean() if losses else embeddings.sum() * 0
