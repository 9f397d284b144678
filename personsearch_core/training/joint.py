"""The re-ID half of a joint training: the people of a detector's batch -> branch -> loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personsearch_core.boxes import Boxes
from personsearch_core.errors import PersonSearchError
from personsearch_core.losses.build import build_objective
from personsearch_core.losses.objective import Batch, Term, rows_of
from personsearch_core.models.branch import build_branch
from personsearch_core.models.compute import arrange, on_device, prepare
from personsearch_core.models.detector import Detector
from personsearch_core.models.targets import Targets
from personsearch_core.pooling.rois import pool_shared_map
from personsearch_core.recipes import SHARED_STRIDE, Compute, JointRecipe

BRANCH_WEIGHTS = "branch.safetensors"
UNTRAINED_BRANCH_WEIGHTS = "branch_untrained.safetensors"


class ReidLoss(NamedTuple):
    """The loss of a batch's people, and the embeddings that the objective will remember."""

    term: Term
    people: Batch


class JointBranch(nn.Module):
    """A branch and its objective, beside the detector whose shared map they read."""

    def __init__(
        self, recipe: JointRecipe, detector: Detector, identities: int, compute: Compute, seed: int
    ) -> None:
        super().__init__()
        if identities < 2:
            raise PersonSearchError(
                f"joint training needs at least two identities in its training scenes, not {identities}"
            )
        self.recipe = recipe
        self.compute = compute
        variant = recipe.roi.variant
        branch = build_branch(variant, detector.model, recipe.branch, detector.state_dict(), seed)
        self.branch = prepare(branch.train(), compute, any_batch=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.objective = build_objective(recipe.objectives, identities, recipe.branch.embedding_dim)

    def forward(self, shared: Tensor, targets: Sequence[Targets]) -> ReidLoss | None:
        """Loss of a batch's people in the shared map (B, C, h, w); None if fewer than two are known.

        targets: by image, on the host.
        """
        rois, labels = self._people(targets)
        if int((labels >= 0).sum()) < 2:
            return None
        pooled = pool_shared_map(
            shared if self.recipe.shared_gradients else shared.detach(), rois, self.recipe.roi
        )
        embeddings = self.branch(arrange(pooled, self.compute))
        with torch.autocast(shared.device.type, enabled=False):
            embeddings = embeddings.float()
            if self.recipe.branch.loss_normalise:
                embeddings = F.normalize(embeddings, dim=1)
            there = on_device(labels, shared.device)
            people = Batch(embeddings, there, rows_of(labels, there))
            return ReidLoss(self.objective(people), people.detached())

    def _people(self, targets: Sequence[Targets]) -> tuple[list[Boxes], Tensor]:
        """Per image, boxes (n, 4) in cells of the shared map; and all their labels. No ignore regions."""
        stride = SHARED_STRIDE[self.recipe.roi.variant]
        rois, labels = [], []
        for target in targets:
            kept = ~target.ignore if target.people is not None else torch.zeros_like(target.ignore)
            rois.append((target.boxes[kept] / stride).numpy())
            if target.people is not None:
                labels.append(target.people[kept])
        return rois, torch.cat(labels) if labels else torch.empty(0, dtype=torch.int64)
