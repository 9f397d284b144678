"""The trainer's view of an objective: a loss on a batch, what to watch, and a memory to update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personsearch_core.identities import UNLABELLED
from personsearch_core.losses.distances import full_precision


@dataclass(frozen=True)
class Batch:
    """Embeddings (B, D) with labels (B,): from 0, or `UNLABELLED`."""

    embeddings: Tensor
    labels: Tensor

    @property
    def unlabelled(self) -> Tensor:
        """(B,) mask of unlabelled rows."""
        return self.labels == UNLABELLED

    @property
    def labelled_embeddings(self) -> Tensor:
        return full_precision(self.embeddings[self.labels != UNLABELLED])

    @property
    def labelled(self) -> Tensor:
        """Labels of the rows that have one."""
        return self.labels[self.labels != UNLABELLED]

    @property
    def unlabelled_embeddings(self) -> Tensor:
        return full_precision(self.embeddings[self.unlabelled])

    def detached(self) -> Batch:
        return Batch(self.embeddings.detach(), self.labels)


@dataclass(frozen=True)
class Term:
    """A scalar loss with a gradient, and detached scalars to watch."""

    loss: Tensor
    watched: dict[str, Tensor] = field(default_factory=dict)


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over rows (B, classes) with labels (B,); 0 without a row."""
    return F.cross_entropy(logits, labels, reduction="sum") / max(1, len(labels))


class ReidObjective(nn.Module, ABC):
    """A term of the re-ID loss. Parameters are learnt with the branch; buffers are its memory.

    Other packages offer theirs as entry points `personsearch.objectives`; see docs/adding-an-objective.md.
    """

    version: ClassVar[int] = 1
    """Of an objective of another package: raised where it computes something else, it keys new trainings."""
    fixed_shapes: ClassVar[bool] = False
    """Whether the numbers of a batch decide no shape in it, on a GPU or in a graph. Then a GPU's host waits
    for none of them, and `compute.compile` makes `forward` part of the branch's graph."""

    @abstractmethod
    def forward(self, batch: Batch) -> Term:
        """The loss of a batch, before any update of the memory."""

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Add the (detached) batch to the memory, after the backward pass. Most objectives have no memory."""
        return
