"""Identity classifiers: softmax over all training identities, or over the hardest ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from personsearch_core.losses.objective import Batch, ReidObjective, Term, mean_cross_entropy


class IdentitySoftmax(ReidObjective):
    """Cross-entropy of a linear classifier over the training identities, on labelled rows.

    Xiao et al. 2016, "End-to-End Deep Learning for Person Search"; Chen et al. 2018.
    """

    fixed_shapes = True

    def __init__(self, identities: int, dim: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(dim, identities)

    def logits(self, batch: Batch) -> Tensor:
        """(labelled rows, identities)."""
        logits: Tensor = self.classifier(batch.labelled_embeddings.to(self.classifier.weight.dtype))
        return logits

    def forward(self, batch: Batch) -> Term:
        return Term(mean_cross_entropy(self.logits(batch), batch.labelled))


class HardExamplePrioritySoftmax(IdentitySoftmax):
    """HEP: a softmax over the identities of the batch and the hardest of the others.

    He et al. 2018, "I-Net" (arXiv 1804.00376). Our reading of "hardest": those with the largest
    logit over the rows of the batch. All remaining identities stay out of the sum.
    """

    fixed_shapes = True

    def __init__(self, identities: int, dim: int, *, hard_identities: int = 100) -> None:
        super().__init__(identities, dim)
        self.hard_identities = hard_identities

    def logits(self, batch: Batch) -> Tensor:
        """The same; -inf for identities that stay out of the sum."""
        logits = super().logits(batch)
        return logits.masked_fill(~self.priority(logits.detach(), batch.labelled), -math.inf)

    def priority(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(identities,) mask: the batch's own identities and the `hard_identities` hardest others."""
        identities = torch.arange(logits.shape[1], device=logits.device)
        chosen = (labels[:, None] == identities).any(dim=0)
        if len(labels):
            hardness = logits.amax(dim=0).masked_fill(chosen, -math.inf)
            others = min(self.hard_identities, len(hardness))
            chosen = chosen.index_fill(0, hardness.topk(others).indices, True)
        return chosen
