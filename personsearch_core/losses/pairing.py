"""On-line pairing loss: positive pairs of a batch against a dictionary of negatives."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from personsearch_core.identities import UNLABELLED
from personsearch_core.losses.distances import full_precision
from personsearch_core.losses.memory import CircularQueue
from personsearch_core.losses.mining import relations
from personsearch_core.losses.objective import Batch, ReidObjective, Term
from personsearch_core.models.compute import is_eager_on_cpu


class OnLinePairing(ReidObjective):
    """OLP: each anchor-positive pair must be more similar than the anchor is to the stored negatives.

    He et al. 2018, "I-Net" (arXiv 1804.00376). With cosine similarities s, the loss of a pair (a, p) is
    `-log(exp(s(a, p) / t) / (exp(s(a, p) / t) + sum_n exp(s(a, n) / t)))`, n over the stored embeddings of
    other people. Our reading: the dictionary is a circular queue of past embeddings, unlabelled people
    included; each ordered pair of a batch counts once; t = 0.1.
    """

    fixed_shapes = True

    def __init__(self, dim: int, *, temperature: float = 0.1, queue: int = 1000) -> None:
        super().__init__()
        self.temperature = temperature
        self.dictionary = CircularQueue(queue, dim)

    def forward(self, batch: Batch) -> Term:
        unit = F.normalize(batch.labelled_embeddings, dim=1)
        labels = batch.labelled
        pairs = relations(labels).same
        products, stored_labels = self.dictionary.compared(unit)
        own = (stored_labels[None, :] == labels[:, None]) & (stored_labels != UNLABELLED)[None, :]
        to_negatives = (products / self.temperature).masked_fill(own, -torch.inf)
        if not is_eager_on_cpu(unit):
            to_rows = unit @ unit.T / self.temperature
            losses = torch.logaddexp(to_rows, to_negatives.logsumexp(dim=1)[:, None]) - to_rows
            return Term((losses * pairs).sum() / pairs.sum().clamp(min=1))
        anchor, positive = pairs.nonzero(as_tuple=True)
        to_positive = (unit[anchor] * unit[positive]).sum(dim=1) / self.temperature
        among = torch.cat([to_positive[:, None], to_negatives[anchor]], dim=1)
        losses = among.logsumexp(dim=1) - to_positive
        return Term(losses.sum() / max(1, len(losses)))

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        self.dictionary.push(F.normalize(full_precision(batch.embeddings), dim=1), batch.labels)
