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
from personsearch_core.losses.objective import Batch
from personsearch_core.recipes import ReidRecipe
from personsearch_core.training.group import Alone
from personsearch_core.training.optimisation import autocast
from personsearch_core.training.watching import losses_by_source


class StepLosses(NamedTuple):
    """loss: scalar, with a gradient. watched: detached scalars. embeddings: (B, D) of the batch, detached."""

    loss: Tensor
    watched: dict[str, Tensor]
    embeddings: Tensor


class ReidLosses(nn.Module):
    """Rows -> losses; one module, so that a group of processes averages the gradients of all of it."""

    def __init__(
        self, recipe: ReidRecipe, branch: nn.Module, identities: int, device: torch.device, group: Alone
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.branch = branch
        self.objectives = _build_objectives(recipe, identities).to(device)
        self._device = device
        self._group = group
        graphs = recipe.cuda_graphs and device.type == "cuda" and group.count == 1
        embed: Callable[[Tensor], Tensor] = branch
        if recipe.compute.compile:
            embed = torch.compile(branch, mode="reduce-overhead" if graphs else "default")
        self._embed = partial(embed)  # a module would be one more submodule, of the same parameters

    def objective(self, phase: int) -> WeightedSum:
        """That of a phase."""
        found = self.objectives[phase]
        assert isinstance(found, WeightedSum)
        return found

    def forward(
        self, features: Tensor, labels: Tensor, phase: int, positions: Mapping[str, IntArray]
    ) -> StepLosses:
        """Losses of a batch.

        features: this process's rows. labels: (B,) of the whole batch. positions: see `losses_by_source`.
        """
        with autocast(self.recipe.compute, self._device):
            embeddings = self._embed(features)
        embeddings = self._group.join(embeddings, len(labels))
        if self.recipe.branch.loss_normalise:
            embeddings = F.normalize(embeddings.float(), dim=1)
        batch, objective = Batch(embeddings, labels), self.objective(phase)
        by_source = losses_by_source(objective, batch.detached(), positions)
        term = objective(batch)
        named = {free_name(f"loss/{name}", term.watched): loss for name, loss in by_source.items()}
        return StepLosses(term.loss, {**term.watched, **named}, embeddings.detach())


def _build_objectives(recipe: ReidRecipe, identities: int) -> nn.ModuleList:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return nn.ModuleList(
            build_objective(phase.objectives, identities, recipe.branch.embedding_dim)
            for phase in recipe.phases
        )
