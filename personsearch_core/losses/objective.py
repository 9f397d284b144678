"""The trainer's view of an objective: a loss on a batch, what to watch, and a memory to update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personsearch_core.identities import UNLABELLED
from personsearch_core.losses.distances import full_precision
from personsearch_core.losses.memory import turns_of
from personsearch_core.models.compute import on_device


class BatchRows(NamedTuple):
    """Which rows of a batch have an identity, as indices on its device: how many they are, the host knows."""

    of: Tensor
    """The labels (B,) on the device: rows of others are not these."""
    labelled: Tensor
    unlabelled: Tensor
    turns: tuple[Tensor, ...]
    """Among the labelled rows, the first ones of all identities, their second ones, and so on."""


def rows_of(labels: Tensor, there: Tensor) -> BatchRows:
    """The rows of a batch with the labels (B,), which the host has in its memory; `there`: on the device."""
    labelled = labels != UNLABELLED
    found = [labelled.nonzero()[:, 0], (~labelled).nonzero()[:, 0], *turns_of(labels[labelled])]
    moved = on_device(torch.cat(found), there.device).split([len(each) for each in found])
    return BatchRows(there, moved[0], moved[1], tuple(moved[2:]))


@dataclass(frozen=True)
class Batch:
    """Embeddings (B, D) with labels (B,): from 0, or `UNLABELLED`."""

    embeddings: Tensor
    labels: Tensor
    known_rows: BatchRows | None = None
    """Without them, or if they are of other labels, the host asks a GPU which rows have one, and waits."""

    @property
    def rows(self) -> BatchRows:
        """Which rows have an identity."""
        if self.known_rows is not None and self.known_rows.of is self.labels:
            return self.known_rows
        return rows_of(self.labels.cpu(), self.labels)

    @property
    def unlabelled(self) -> Tensor:
        """(B,) mask of unlabelled rows."""
        return self.labels == UNLABELLED

    @property
    def labelled_embeddings(self) -> Tensor:
        return full_precision(self.embeddings[self.rows.labelled])

    @property
    def labelled(self) -> Tensor:
        """Labels of the rows that have one."""
        return self.labels[self.rows.labelled]

    @property
    def unlabelled_embeddings(self) -> Tensor:
        return full_precision(self.embeddings[self.rows.unlabelled])

    def detached(self) -> Batch:
        return Batch(self.embeddings.detach(), self.labels, self.known_rows)


@dataclass(frozen=True)
class Term:
    """A scalar loss with a gradient, and detached scalars to watch."""

    loss: Tensor
    watched: dict[str, Tensor] = field(default_factory=dict)


def mean_cross_entropy(logits: Tensor, labels: Tensor, number: int | Tensor | None = None) -> Tensor:
    """Mean over rows (B, classes) with labels (B,); 0 without a row.

    number: how many rows have a label, if not all have: the others are left out.
    """
    losses = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    return losses / (max(1, len(labels)) if number is None else number)


class ReidObjective(nn.Module, ABC):
    """A term of the re-ID loss. Parameters are learnt with the branch; buffers are its memory.

    Other packages offer theirs as entry points `personsearch.objectives`; see docs/adding-an-objective.md.
    """

    version: ClassVar[int] = 1
    """Of an objective of another package: raised where it computes something else, it keys new trainings."""
    fixed_shapes: ClassVar[bool] = False
    """Whether the numbers of a batch decide no shape in it, on a GPU or in a graph. Then a GPU's host waits
    for none of them, and `compute.compile` makes `forward` part of the branch's graph."""

    def has_fixed_shapes(self, rows: int) -> bool:
        """Whether `fixed_shapes` holds for batches of that many rows; each class promises it for itself."""
        return bool(vars(type(self)).get("fixed_shapes", False))

    @abstractmethod
    def forward(self, batch: Batch) -> Term:
        """The loss of a batch, before any update of the memory."""

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Add the (detached) batch to the memory, after the backward pass. Most objectives have no memory."""
        return
