"""Identity classifiers: softmax over all training identities, or over the hardest ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personsearch_core.losses.objective import Batch, ReidObjective, Term


class IdentitySoftmax(ReidObjective):
    """Cross-entropy of a linear classifier over the training identities, on labelled rows.

    Xiao et al. 2016, "End-to-End Deep Learning for Person Search"; Chen et al. 2018.
    """

    def __init__(self, identities: int, dim: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(dim, identities)

    def logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self.classifier(batch.labelled_embeddings.to(self.classifier.weight.dtype))
        return logits

    def forward(self, batch: Batch) -> Term:
        losses = F.cross_entropy(self.logits(batch), batch.labelled, reduction="sum")
        return Term(losses / max(1, len(batch.labelled)))


class HardExamplePrioritySoftmax(IdentitySoftmax):
    """HEP: a softmax over the identities of the batch and the hardest of the others.

    He et al. 2018, "I-Net" (arXiv 1804.00376). Our reading of "hardest": those with the largest
    logit over the rows of the batch. All remaining identities stay out of the sum.
    """

    def __init__(self, identities: int, dim: int, *, hard_identities: int = 100) -> None:
        super().__init__(identities, dim)
        self.hard_identities = hard_identities

    def forward(self, batch: Batch) -> Term:
        logits, labels = self.logits(batch), batch.labelled
        losses = F.cross_entropy(
            logits.masked_fill(~self.priority(logits.detach(), labels), -math.inf), labels, reduction="sum"
        )
        return Term(losses / max(1, len(labels)))

    def priority(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(identities,) mask: the batch's own identities and the `hard_identities` hardest others."""
        chosen = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        chosen[labels] = True
        if len(labels):
            hardness = logits.amax(dim=0).masked_fill(chosen, -math.inf)
            others = min(self.hard_identities, len(hardness))
            chosen[hardness.topk(others).indices] = True
        return chosen
