"""Center loss: pulls the embeddings of an identity together."""

from __future__ import annotations

import torch
from torch import Tensor

from personsearch_core.losses.objective import Batch, ReidObjective, Term


class CenterLoss(ReidObjective):
    """Mean over labelled rows of `0.5 * |x - c_y|^2`; add an objective that pushes identities apart.

    Wen et al. 2016, "A Discriminative Feature Learning Approach for Deep Face Recognition", equation 2, but
    with the mean over rows instead of the sum, so that its weight does not depend on the batch size. Centres
    move by equation 4: `c <- c - rate * sum(c - x) / (1 + n)` over the n rows of an identity in the batch.
    """

    fixed_shapes = True
    centres: Tensor

    def __init__(self, identities: int, dim: int, *, rate: float = 0.5) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("centres", torch.zeros(identities, dim))

    def forward(self, batch: Batch) -> Term:
        embeddings = batch.labelled_embeddings
        differences = embeddings - self.centres[batch.labelled].to(embeddings.dtype)
        return Term(0.5 * differences.square().sum() / max(1, len(embeddings)))

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        # All centres at once: which ones are in the batch, a GPU's host does not know.
        labels, embeddings = batch.labelled, batch.labelled_embeddings.to(self.centres.dtype)
        members = torch.zeros(len(self.centres), device=labels.device).index_add_(
            0, labels, torch.ones(len(labels), device=labels.device)
        )
        away = torch.zeros_like(self.centres).index_add_(0, labels, self.centres[labels] - embeddings)
        self.centres -= self.rate * away / (1.0 + members[:, None])
