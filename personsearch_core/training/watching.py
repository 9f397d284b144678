"""Metrics to watch while a branch trains, and detection of a collapse."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import UNLABELLED, IntArray
from personsearch_core.losses.build import default_margin, free_name
from personsearch_core.losses.distances import pairwise_distances
from personsearch_core.losses.mining import relations
from personsearch_core.losses.objective import Batch, rows_of
from personsearch_core.models.compute import on_device
from personsearch_core.recipes import Phase

_PRACTICALLY_0 = 1e-4


class CollapseError(PersonSearchError):
    """All embeddings are the same point."""


@torch.no_grad()
def embedding_statistics(batch: Batch) -> dict[str, Tensor]:
    """Mean distance of positive and negative pairs, and mean norm of a batch's embeddings."""
    embeddings = batch.embeddings.detach()
    distances = pairwise_distances(embeddings)
    related = relations(batch.labels, batch.unlabelled)
    return {
        "positive_distance": _masked_mean(distances, related.same),
        "negative_distance": _masked_mean(distances, related.different),
        "embedding_norm": embeddings.float().norm(dim=1).mean(),
    }


@torch.no_grad()
def losses_by_source(
    objective: nn.Module, batch: Batch, positions: Mapping[str, IntArray], labels: IntArray
) -> dict[str, Tensor]:
    """The loss of each dataset's rows of a batch on their own, by dataset.

    positions: those rows. labels: (B,) of the whole batch. Copies of the objective compute it, since other
    packages' objectives may remember what they see.
    """
    found, device = {}, batch.labels.device
    for source, rows in positions.items():
        chosen, known = on_device(torch.from_numpy(rows), device), torch.from_numpy(labels[rows])
        there = batch.labels[chosen]
        own = Batch(batch.embeddings[chosen], there, rows_of(known, there))
        found[source] = copy.deepcopy(objective)(own).loss
    return found


def positions_by_source(source: IntArray, label: IntArray, sources: Sequence[str]) -> dict[str, IntArray]:
    """The rows of a batch by their datasets, if there are several.

    `source` (B,) are indices into `sources`, `label` (B,) identities. A dataset with fewer than two people in
    the batch is left out: it has no loss of its own.
    """
    own = {name: np.flatnonzero(source == number) for number, name in enumerate(sources)}
    people = {name: np.unique(label[rows][label[rows] != UNLABELLED]) for name, rows in own.items()}
    return {name: rows for name, rows in own.items() if len(people[name]) > 1} if len(own) > 1 else {}


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum()


class CollapseWatch:
    """Raises when triplet training has collapsed: all embeddings are equal, so only the margin is left.

    A step looks collapsed if a triplet term is within 2 % of the loss of zero distances (log 2 for the soft
    margin, else the margin) while negatives are practically at one point: nearer than a tenth of their
    largest distance so far, or than a hundredth of the embeddings' norm, which also covers embeddings that
    were never apart. `STEPS` of the last `WINDOW` steps are a collapse: noisy batches in between do not hide
    it, and it is reported within 50 steps.
    """

    STEPS = 20
    WINDOW = 30
    REFERENCE_STEPS = 10
    """The reference is the largest mean distance over this many consecutive steps, or over the first ones."""
    FAR_BELOW_NORM = 0.01
    """In untrained branches negatives are several hundredths of the norm apart, or more."""

    def __init__(self, phases: tuple[Phase, ...]) -> None:
        self._levels = [_collapsed_levels(phase) for phase in phases]
        self._recent: deque[bool] = deque(maxlen=self.WINDOW)
        self._distances: deque[float] = deque(maxlen=self.REFERENCE_STEPS)
        self._reference = 0.0

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Check one step's metrics; raise `CollapseError` with advice."""
        distance = metrics["negative_distance"]
        if math.isfinite(distance):
            self._distances.append(distance)
            self._reference = max(self._reference, sum(self._distances) / len(self._distances))
        near = distance < max(
            0.1 * self._reference, self.FAR_BELOW_NORM * metrics["embedding_norm"], _PRACTICALLY_0
        )
        level = next(
            (
                (name, level)
                for name, level in self._levels[int(metrics["phase"])].items()
                if abs(metrics[name] - level) <= 0.02 * level
            ),
            None,
        )
        self._recent.append(near and level is not None)
        if level is not None and sum(self._recent) >= self.STEPS:
            name, value = level
            raise CollapseError(
                f"training has collapsed by step {step}: for {sum(self._recent)} of the last "
                f"{len(self._recent)} steps {name} was {value:.3f}, the loss of zero distances; negatives "
                f"are {distance:.2g} apart (at most {self._reference:.2g} before, embeddings' norm "
                f"{metrics['embedding_norm']:.2g}): all embeddings are the same point. Lower lr or add "
                "schedule.warmup_steps; begin with a phase of semi_hard_triplet before "
                "batch_hard_triplet; or set branch.loss_normalise"
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "recent": list(self._recent),
            "distances": list(self._distances),
            "reference": self._reference,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._recent = deque(state["recent"], maxlen=self.WINDOW)
        self._distances = deque(state["distances"], maxlen=self.REFERENCE_STEPS)
        self._reference = state["reference"]


def _collapsed_levels(phase: Phase) -> dict[str, float]:
    """Loss of zero distances of each triplet term of a phase, by its name in the log."""
    levels: dict[str, float] = {}
    for objective in phase.objectives:
        if objective.kind in ("semi_hard_triplet", "batch_hard_triplet"):
            margin = default_margin(objective)
            level = math.log(2) if margin == "soft" else float(margin)
            levels[free_name(f"loss/{objective.name}", levels)] = level
    return levels


class BestWeights:
    """The weights of the best validation so far, and how many validations ago it was."""

    def __init__(self) -> None:
        self.score = -math.inf
        self.steps = 0
        self.since = 0
        self.weights: dict[str, Tensor] = {}

    def offer(self, score: float, steps: int, weights: Mapping[str, Tensor]) -> None:
        """Keep a copy of the weights if their score is the highest so far."""
        if score <= self.score:
            self.since += 1
            return
        self.score, self.steps, self.since = score, steps, 0
        self.weights = {name: value.detach().cpu().clone() for name, value in weights.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "steps": self.steps, "since": self.since, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.score, self.steps, self.since = state["score"], state["steps"], state["since"]
        self.weights = dict(state["weights"])
