"""An additive margin on the cosine of the true identity (Wang et al. 2018, CosFace)."""

import torch
from torch import nn
from torch.nn import functional as F

from personsearch_core.losses import Batch, ReidObjective, Term


class AdditiveMargin(ReidObjective):
    version = 1  # raise it where the loss changes: it is part of the key of a training
    fixed_shapes = True  # the numbers of a batch decide no shape

    def __init__(self, identities: int, dim: int, margin: float = 0.35, scale: float = 30.0) -> None:
        super().__init__()
        self.margin, self.scale = margin, scale
        self.centres = nn.Parameter(torch.randn(identities, dim))

    def forward(self, batch: Batch) -> Term:
        labels = batch.labelled
        cosine = F.normalize(batch.labelled_embeddings, dim=1) @ F.normalize(self.centres, dim=1).T
        margin = self.margin * F.one_hot(labels, cosine.shape[1])
        correct = (cosine.argmax(dim=1) == labels).float().mean()
        return Term(F.cross_entropy(self.scale * (cosine - margin), labels), {"correct": correct})
