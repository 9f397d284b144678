"""Builds an objective from its recipe."""

from __future__ import annotations

import functools
import json
from collections.abc import Container
from itertools import count
from typing import Any

import torch
from torch import nn

from personsearch_core.losses.center import CenterLoss
from personsearch_core.losses.distances import pairwise_distances
from personsearch_core.losses.metric_learning import MetricLearning
from personsearch_core.losses.mining import (
    batch_hard_triplets,
    compares_at_once,
    relations,
    semi_hard_triplets,
)
from personsearch_core.losses.objective import Batch, ReidObjective, Term
from personsearch_core.losses.oim import InstanceEnhancing, OnlineInstanceMatching
from personsearch_core.losses.options import try_out
from personsearch_core.losses.pairing import OnLinePairing
from personsearch_core.losses.softmax import HardExamplePrioritySoftmax, IdentitySoftmax
from personsearch_core.losses.third_party import build_third_party
from personsearch_core.losses.triplet import Margin, Miner, active_fraction, triplet_margin_loss
from personsearch_core.recipes import Objective


class TripletObjective(ReidObjective):
    """A triplet loss as a term; unlabelled rows are negatives."""

    fixed_shapes = True

    def __init__(self, mine: Miner, margin: Margin, squared: bool) -> None:
        super().__init__()
        self.mine = mine
        self.margin = margin
        self.squared = squared

    def has_fixed_shapes(self, rows: int) -> bool:
        """Of semi-hard triplets up to some 400 rows: see `TRIPLES_AT_ONCE`."""
        possible = self.mine is not semi_hard_triplets or compares_at_once(rows)
        return possible and super().has_fixed_shapes(rows)

    def forward(self, batch: Batch) -> Term:
        distances = pairwise_distances(batch.embeddings, squared=self.squared)
        triplets = self.mine(distances, relations(batch.labels, batch.unlabelled))
        loss = triplet_margin_loss(triplets, self.margin)
        return Term(loss, {"active_triplets": active_fraction(triplets, self.margin)})


class WeightedSum(ReidObjective):
    """The objectives of a phase, weighted and added; watches each term under `loss/<kind>`.

    If several terms measure something under one name, it is numbered: `loss/<kind>`, `loss/<kind>_2`.
    """

    def __init__(self, terms: list[ReidObjective], kinds: list[str], weights: list[float]) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)
        self.kinds = kinds
        self.weights = weights

    def has_fixed_shapes(self, rows: int) -> bool:
        return all(isinstance(term, ReidObjective) and term.has_fixed_shapes(rows) for term in self.terms)

    def forward(self, batch: Batch) -> Term:
        watched: dict[str, torch.Tensor] = {}
        losses = []
        for term, kind, weight in zip(self.terms, self.kinds, self.weights, strict=True):
            result: Term = term(batch)
            losses.append(weight * result.loss)
            for measured, value in {f"loss/{kind}": result.loss.detach(), **result.watched}.items():
                watched[free_name(measured, watched)] = value
        return Term(torch.stack(losses).sum(), watched)

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        for term in self.terms:
            assert isinstance(term, ReidObjective)
            term.update(batch)


def free_name(name: str, taken: Container[str]) -> str:
    """`name`, or the first of `<name>_2`, `<name>_3` ... that is not taken."""
    numbered = (f"{name}_{number}" if number > 1 else name for number in count(1))
    return next(each for each in numbered if each not in taken)


def default_margin(objective: Objective) -> Margin:
    """The margin of a triplet objective; default 1.0 (semi-hard) or soft (batch-hard)."""
    if objective.margin is not None:
        return objective.margin
    return 1.0 if objective.kind == "semi_hard_triplet" else "soft"


def build_objective(objectives: tuple[Objective, ...], identities: int, dim: int) -> WeightedSum:
    """Build the weighted sum of a phase's objectives.

    Classifiers are drawn from torch's generator: seed or fork it around the call.

    Parameters
    ----------
    objectives
        Recipes of the terms, with their weights.
    identities
        Number of training identities.
    dim
        Embedding dimensions.

    Returns
    -------
    WeightedSum
        A module: `Batch` of embeddings and labels -> `Term` of the loss and what to watch.

    Examples
    --------
    >>> batch = Batch(torch.eye(4), torch.tensor([0, 0, 1, 1]))
    >>> loss = build_objective((Objective(kind="batch_hard_triplet", margin=0.5),), identities=2, dim=4)
    >>> round(float(loss(batch).loss), 4)
    0.5
    """
    return WeightedSum(
        terms=[_build_term(objective, identities, dim) for objective in objectives],
        kinds=[objective.name for objective in objectives],
        weights=[objective.weight for objective in objectives],
    )


def check_objective(objective: Objective) -> None:
    """Build an objective of another package, and compute it once on a small batch.

    Raises PersonSearchError, which says what to write.
    """
    _try(json.dumps(objective.model_dump(mode="json", exclude={"weight"})))


@functools.cache
def _try(recipe: str) -> None:
    """Once per recipe: a config is read several times in a run."""
    objective = Objective.model_construct(**json.loads(recipe))
    parts = [name for name in (objective.loss, objective.miner) if name]
    owner = " with ".join(parts) or f"objective {objective.kind!r}"
    try_out(functools.partial(_build_term, objective), owner)


def _build_term(objective: Objective, identities: int, dim: int) -> ReidObjective:
    match objective.kind:
        case "semi_hard_triplet":
            return TripletObjective(semi_hard_triplets, default_margin(objective), bool(objective.squared))
        case "batch_hard_triplet":
            return TripletObjective(batch_hard_triplets, default_margin(objective), bool(objective.squared))
        case "identity_softmax":
            return IdentitySoftmax(identities, dim)
        case "hep_softmax":
            return HardExamplePrioritySoftmax(identities, dim, **_given(objective, "hard_identities"))
        case "oim":
            return OnlineInstanceMatching(
                identities, dim, **_given(objective, "temperature", "momentum", "queue")
            )
        case "ioim":
            options: dict[str, Any] = {"unlabelled_temperature": 0.2}
            options |= _given(objective, "temperature", "unlabelled_temperature", "momentum", "queue")
            return OnlineInstanceMatching(identities, dim, **options)
        case "iel":
            return InstanceEnhancing(
                identities, dim, **_given(objective, "temperature", "momentum", "queue", "threshold")
            )
        case "center":
            momentum = 0.5 if objective.momentum is None else objective.momentum
            return CenterLoss(identities, dim, rate=1.0 - momentum)
        case "olp":
            return OnLinePairing(dim, **_given(objective, "temperature", "queue"))
        case "metric_learning":
            return MetricLearning(objective, identities, dim)
        case _:
            return build_third_party(objective.kind, objective.options, identities, dim)


def _given(objective: Objective, *names: str) -> dict[str, Any]:
    """The fields that the recipe sets; the others keep the objective's defaults."""
    return {name: value for name in names if (value := getattr(objective, name)) is not None}
