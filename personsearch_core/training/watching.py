"""What is watched while a branch trains, and the recognition of a collapse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from personsearch_core.errors import PersonSearchError
from personsearch_core.losses.build import default_margin
from personsearch_core.losses.distances import pairwise_distances
from personsearch_core.losses.mining import relations
from personsearch_core.losses.objective import Batch
from personsearch_core.recipes import Phase


class CollapseError(PersonSearchError):
    """All embeddings have become the same point."""


@torch.no_grad()
def embedding_statistics(batch: Batch) -> dict[str, Tensor]:
    """Mean distance of positive and of negative pairs, and mean norm of a batch's embeddings."""
    embeddings = batch.embeddings.detach()
    distances = pairwise_distances(embeddings)
    related = relations(batch.labels, batch.unlabelled)
    return {
        "positive_distance": _masked_mean(distances, related.same),
        "negative_distance": _masked_mean(distances, related.different),
        "embedding_norm": embeddings.float().norm(dim=1).mean(),
    }


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum()


class CollapseWatch:
    """Raises where triplet training has collapsed: every embedding the same, so that only the margin is left.

    A step looks collapsed where a triplet term equals the loss of zero distances (log 2 for the soft margin,
    else the margin) to 2 % while the distance of negatives is below a tenth of what it was at the phase's
    start, or is practically 0. `PATIENCE` such steps in a row are a collapse.
    """

    PATIENCE = 25
    REFERENCE_STEPS = 10

    def __init__(self, phases: tuple[Phase, ...]) -> None:
        self._levels = [_collapsed_levels(phase) for phase in phases]
        self._phase = -1
        self._reference: list[float] = []
        self._in_a_row = 0

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at one step's metrics; raise `CollapseError` with the remedy."""
        phase = int(metrics["phase"])
        if phase != self._phase:
            self._phase, self._reference, self._in_a_row = phase, [], 0
        distance = metrics["negative_distance"]
        if len(self._reference) < self.REFERENCE_STEPS:
            self._reference.append(distance)
        usual = sum(self._reference) / len(self._reference)
        near = distance < max(0.1 * usual, 1e-4)
        level = next(
            (
                (kind, level)
                for kind, level in self._levels[phase].items()
                if abs(metrics[f"loss/{kind}"] - level) <= 0.02 * level
            ),
            None,
        )
        self._in_a_row = self._in_a_row + 1 if near and level is not None else 0
        if level is not None and self._in_a_row >= self.PATIENCE:
            kind, value = level
            raise CollapseError(
                f"training has collapsed by step {step}: for {self.PATIENCE} steps {kind} was {value:.3f}, "
                f"the loss of zero distances, and negatives are {distance:.2g} apart (at first {usual:.2g}): "
                "all embeddings are the same point. Lower lr or add schedule.warmup_steps; begin with a "
                "phase of semi_hard_triplet before batch_hard_triplet; or set branch.loss_normalise"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"phase": self._phase, "reference": list(self._reference), "in_a_row": self._in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._phase = state["phase"]
        self._reference = list(state["reference"])
        self._in_a_row = state["in_a_row"]


def _collapsed_levels(phase: Phase) -> dict[str, float]:
    """Loss of zero distances, for each triplet term of a phase."""
    levels: dict[str, float] = {}
    for objective in phase.objectives:
        if objective.kind in ("semi_hard_triplet", "batch_hard_triplet"):
            margin = default_margin(objective)
            levels[objective.kind] = math.log(2) if margin == "soft" else float(margin)
    return levels


class BestWeights:
    """The weights of the best validation so far, and how many validations ago it was."""

    def __init__(self) -> None:
        self.score = -math.inf
        self.steps = 0
        self.since = 0
        self.weights: dict[str, Tensor] = {}

    def offer(self, score: float, steps: int, weights: Mapping[str, Tensor]) -> None:
        """Keep a copy of the weights where their score is the highest so far."""
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
