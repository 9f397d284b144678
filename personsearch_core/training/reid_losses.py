"""A re-ID step's forward pass: the branch on this process's rows, the objectives on those of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personsearch_core.identities import IntArray
from personsearch_core.losses.build import WeightedSum, build_objective, free_name
from personsearch_core.losses.objective import Batch, BatchRows, rows_of
from personsearch_core.models.compute import autocast, compiled, on_device
from personsearch_core.recipes import ReidRecipe
from personsearch_core.training.group import Alone
from personsearch_core.training.watching import losses_by_source


class StepLosses(NamedTuple):
    """loss: scalar, with a gradient. watched: detached scalars. batch: with detached embeddings."""

    loss: Tensor
    watched: dict[str, Tensor]
    batch: Batch


class ReidLosses(nn.Module):
    """Rows -> losses; one module, so that a group of processes averages the gradients of all of it.

    With `compute.compile`, branch and objectives of a phase are one graph, and so is the backward pass
    through them. The branch is compiled alone, and its objectives are eager, where the numbers of a batch
    decide shapes in one of them (see `ReidObjective.fixed_shapes`), and where processes exchange embeddings
    in between.
    """

    def __init__(
        self, recipe: ReidRecipe, branch: nn.Module, identities: int, device: torch.device, group: Alone
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.branch = branch
        self.objectives = _build_objectives(recipe, identities).to(device)
        self._device = device
        self._group = group
        alone = group.count == 1
        self._replayed = recipe.cuda_graphs and device.type == "cuda" and alone
        embed: Callable[[Tensor], Tensor] = branch
        self._graph: (
            Callable[[Tensor, Tensor, BatchRows, int], tuple[Tensor, dict[str, Tensor], Tensor]] | None
        ) = None
        if recipe.compute.compile:
            # Norms over processes break a graph.
            embed = compiled(branch, unbroken=alone, replayed=self._replayed)
            if alone:
                self._graph = compiled(self._whole, replayed=self._replayed)
        self._embed = partial(embed)  # a module would be one more submodule, of the same parameters

    def objective(self, phase: int) -> WeightedSum:
        """That of a phase."""
        found = self.objectives[phase]
        assert isinstance(found, WeightedSum)
        return found

    def forward(
        self, features: Tensor, labels: IntArray, phase: int, positions: Mapping[str, IntArray]
    ) -> StepLosses:
        """Losses of a batch.

        features: this process's rows. labels: (B,) of the whole batch. positions: see `losses_by_source`.
        """
        objective, known = self.objective(phase), torch.from_numpy(labels)
        on_its_device = on_device(known, self._device)
        rows = rows_of(known, on_its_device)
        if self._graph is not None and objective.has_fixed_shapes(len(labels)):
            loss, watched, embeddings = self._graph(features, on_its_device, rows, phase)
            if self._replayed:  # the next replay overwrites them, and they may be kept until later
                loss, embeddings = loss.clone(), embeddings.clone()
                watched = {name: value.clone() for name, value in watched.items()}
            batch = Batch(embeddings, on_its_device, rows)
            by_source = losses_by_source(objective, batch, positions, labels)
        else:
            with_gradient = Batch(self._embedded(self._embed, features, len(labels)), on_its_device, rows)
            batch = with_gradient.detached()
            # First, for objectives of other packages may change as they are computed.
            by_source = losses_by_source(objective, batch, positions, labels)
            term = objective(with_gradient)
            loss, watched = term.loss, term.watched
        named = {free_name(f"loss/{name}", watched): value for name, value in by_source.items()}
        return StepLosses(loss, {**watched, **named}, batch)

    def _embedded(self, embed: Callable[[Tensor], Tensor], features: Tensor, total: int) -> Tensor:
        """The embeddings (total, D) of the whole batch."""
        with autocast(self.recipe.compute, self._device):
            own = embed(features)
        embeddings = self._group.join(own, total)
        return F.normalize(embeddings.float(), dim=1) if self.recipe.branch.loss_normalise else embeddings

    def _whole(
        self, features: Tensor, labels: Tensor, rows: BatchRows, phase: int
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """What becomes one graph: the loss, what to watch, and the embeddings."""
        embeddings = self._embedded(self.branch, features, len(labels))
        term = self.objective(phase)(Batch(embeddings, labels, rows))
        return term.loss, term.watched, embeddings.detach()


def _build_objectives(recipe: ReidRecipe, identities: int) -> nn.ModuleList:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return nn.ModuleList(
            build_objective(phase.objectives, identities, recipe.branch.embedding_dim)
            for phase in recipe.phases
        )
