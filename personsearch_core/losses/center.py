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
        if not len(batch.labelled):
            return
        # Rows of one identity gather at the first of them: a GPU's host does not know how many there are.
        labels, embeddings = batch.labelled, batch.labelled_embeddings.to(self.centres.dtype)
        first = (labels[:, None] == labels[None, :]).to(torch.uint8).argmax(dim=1)
        members = torch.zeros(len(labels), device=labels.device).index_add_(
            0, first, torch.ones(len(labels), device=labels.device)
        )
        centres = self.centres[labels]
        away = torch.zeros_like(centres).index_add_(0, first, centres - embeddings)
        self.centres[labels] = centres - self.rate * away[first] / (1.0 + members[first][:, None])
