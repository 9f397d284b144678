"""Memories that objectives compare a batch with: a row per identity, and a circular queue."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personsearch_core.identities import UNLABELLED


class LookupTable(nn.Module):
    """One unit vector per training identity, moved towards the embeddings of its boxes; takes no gradient.

    It starts at 0, as in OIM: an identity that has not been seen attracts no embedding.
    """

    rows: Tensor

    def __init__(self, identities: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(identities, dim))

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor, momentum: float) -> None:
        """`v <- normalise(momentum * v + (1 - momentum) * x)` for unit embeddings (B, D), in batch order.

        Updates of one identity are sequential; identities are independent, so the n-th rows of all of them
        are updated together.
        """
        embeddings = embeddings.to(self.rows.dtype)
        turn = (labels[:, None] == labels[None, :]).tril(diagonal=-1).sum(dim=1)
        for n in range(int(turn.max()) + 1 if len(turn) else 0):
            of_turn = turn == n
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
    def push(self, embeddings: Tensor, labels: Tensor | None = None) -> None:
        """Append embeddings (B, D), by default of unlabelled people."""
        size = len(self.entries)
        if labels is None:
            labels = torch.full((len(embeddings),), UNLABELLED, device=embeddings.device)
        kept = min(size, len(embeddings))
        first = int(self.pushed) + len(embeddings) - kept
        slots = torch.arange(first, first + kept, device=embeddings.device) % size
        self.entries[slots] = embeddings[len(embeddings) - kept :].to(self.entries.dtype)
        self.labels[slots] = labels[len(embeddings) - kept :]
        self.pushed += len(embeddings)

    @property
    def filled(self) -> int:
        """Number of entries that hold an embedding."""
        return min(int(self.pushed), len(self.entries))
