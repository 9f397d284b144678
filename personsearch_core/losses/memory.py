"""Memories that objectives compare a batch with: a row per identity, and a circular queue."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personsearch_core.identities import UNLABELLED
from personsearch_core.models.compute import is_eager_on_cpu


def turns_of(labels: Tensor) -> list[Tensor]:
    """Of rows with the labels (B,), indices of the first ones of all identities, of the second ones ..."""
    turn = (labels[:, None] == labels[None, :]).tril(diagonal=-1).sum(dim=1)
    return [(turn == n).nonzero()[:, 0] for n in range(int(turn.max()) + 1 if len(turn) else 0)]


class LookupTable(nn.Module):
    """One unit vector per training identity, moved towards the embeddings of its boxes; takes no gradient.

    It starts at 0, as in OIM: an identity that has not been seen attracts no embedding.
    """

    rows: Tensor

    def __init__(self, identities: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(identities, dim))

    @torch.no_grad()
    def update(
        self, embeddings: Tensor, labels: Tensor, momentum: float, turns: Sequence[Tensor] | None = None
    ) -> None:
        """`v <- normalise(momentum * v + (1 - momentum) * x)` for unit embeddings (B, D), in batch order.

        Updates of one identity are sequential; identities are independent, so the n-th rows of all of them,
        which are `turns[n]`, are updated together. Without `turns`, a GPU's host waits for the labels.
        """
        if turns is None:
            turns = turns_of(labels)
        embeddings = embeddings.to(self.rows.dtype)
        for of_turn in turns:
            label = labels[of_turn]
            mixed = momentum * self.rows[label] + (1.0 - momentum) * embeddings[of_turn]
            self.rows[label] = F.normalize(mixed, dim=1)


class CircularQueue(nn.Module):
    """The embeddings pushed last; the oldest are overwritten first. Takes no gradient."""

    entries: Tensor
    labels: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("entries", torch.zeros(size, dim))
        self.register_buffer("labels", torch.full((size,), UNLABELLED, dtype=torch.int64))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, embeddings: Tensor, labels: Tensor | None = None, chosen: Tensor | None = None) -> None:
        """Append embeddings (B, D), by default of unlabelled people; only those of the mask `chosen` (B,)."""
        size, device = len(self.entries), embeddings.device
        if labels is None:
            labels = torch.full((len(embeddings),), UNLABELLED, device=device)
        if chosen is None:
            chosen = torch.ones_like(labels, dtype=torch.bool)
        number = chosen.sum()
        # As many places as rows, whose number the host knows; those after the chosen ones keep their entry.
        place = (number - size).clamp(min=0) + torch.arange(min(size, len(embeddings)), device=device)
        row = (~chosen).to(torch.uint8).argsort(stable=True)[place]
        slot = (self.pushed + place) % size
        written = place < number
        entries = embeddings[row].to(self.entries.dtype)
        self.entries[slot] = torch.where(written[:, None], entries, self.entries[slot])
        self.labels[slot] = torch.where(written, labels[row], self.labels[slot])
        self.pushed += number

    @property
    def filled(self) -> int:
        """Number of entries that hold an embedding."""
        return min(int(self.pushed), len(self.entries))

    def compared(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Products (B, n) of unit embeddings (B, D) with the entries, and the entries' labels (n,).

        An eager CPU leaves empty places out; elsewhere, n is the queue's size, and their products are -inf.
        """
        if is_eager_on_cpu(unit):
            filled = self.filled
            return unit @ self.entries[:filled].to(unit.dtype).T, self.labels[:filled]
        empty = torch.arange(len(self.entries), device=unit.device) >= self.pushed
        return (unit @ self.entries.to(unit.dtype).T).masked_fill(empty, -math.inf), self.labels
