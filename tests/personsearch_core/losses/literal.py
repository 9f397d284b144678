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


def move_centres(centres: Tensor, embeddings: Tensor, labels: Tensor, rate: float) -> None:
    """Of a center loss, in place: those of the identities that are there."""
    identities, member_of = torch.unique(labels, return_inverse=True)
    members = torch.zeros(len(identities)).index_add_(0, member_of, torch.ones(len(member_of)))
    before = centres[identities]
    away = torch.zeros_like(before).index_add_(0, member_of, before[member_of] - embeddings)
    centres[identities] = before - rate * away / (1.0 + members[:, None])


def move_table(table: Tensor, unit: Tensor, labels: Tensor, momentum: float) -> None:
    """Of OIM, in place: the n-th rows of all identities together."""
    turn = (labels[:, None] == labels[None, :]).tril(diagonal=-1).sum(dim=1)
    for n in range(int(turn.max()) + 1 if len(turn) else 0):
        label = labels[turn == n]
        mixed = momentum * table[label] + (1.0 - momentum) * unit[turn == n]
        table[label] = torch.nn.functional.normalize(mixed, dim=1)


class Queue:
    """The rows pushed last, of those alone that belong there."""

    def __init__(self, size: int, dim: int) -> None:
        self.entries, self.labels = torch.zeros(size, dim), torch.full((size,), -1)
        self.pushed = 0

    def push(self, embeddings: Tensor, labels: Tensor) -> None:
        for embedding, label in zip(embeddings, labels, strict=True):
            slot = self.pushed % len(self.entries)
            self.entries[slot], self.labels[slot] = embedding, label
            self.pushed += 1


def priority(logits: Tensor, labels: Tensor, hard_identities: int) -> Tensor:
    """(identities,) mask of HEP: the batch's own identities and the hardest others."""
    chosen = torch.zeros(logits.shape[1], dtype=torch.bool)
    chosen[labels] = True
    if len(labels):
        hardness = logits.amax(dim=0).masked_fill(chosen, -torch.inf)
        chosen[hardness.topk(min(hard_identities, len(hardness))).indices] = True
    return chosen
