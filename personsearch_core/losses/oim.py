"""Online instance matching and two variants, with a lookup table and a queue of unlabelled people.

OIM: Xiao et al. 2017, "Joint Detection and Identification Feature Learning for Person Search"; IEL:
Shi et al. 2018; IOIM: Liu et al. 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from personsearch_core.identities import UNLABELLED
from personsearch_core.losses.memory import CircularQueue, LookupTable
from personsearch_core.losses.objective import Batch, ReidObjective, Term, mean_cross_entropy
from personsearch_core.models.compute import is_eager_on_cpu


class OnlineInstanceMatching(ReidObjective):
    """OIM, or IOIM if the unlabelled entries have a temperature of their own.

    For unit embeddings x, table rows v and queue entries u,
    `p_i = exp(v_i . x / t) / (sum_j exp(v_j . x / t) + sum_k exp(u_k . x / t_u))`, and the loss is the mean
    of `-log p` of the true identity over labelled rows. Unlabelled rows enter the queue and have no loss.

    IOIM hardens the labelled distribution (small t) and softens the unlabelled one (large t_u). Using two
    temperatures is our reading of Liu et al. 2018; OIM has t_u = t = 0.1. Empty entries of the queue are left
    out of the sum. Xiao et al. use a queue of 5,000 for CUHK-SYSU and of 500 for PRW.
    """

    fixed_shapes = True

    def __init__(
        self,
        identities: int,
        dim: int,
        *,
        temperature: float = 0.1,
        unlabelled_temperature: float | None = None,
        momentum: float = 0.5,
        queue: int = 5000,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.unlabelled_temperature = unlabelled_temperature or temperature
        self.momentum = momentum
        self.table = LookupTable(identities, dim)
        self.queue = CircularQueue(queue, dim)

    def logits(self, unit: Tensor) -> Tensor:
        """Unnormalised log-probabilities (B, identities + queue) of unit embeddings (B, D)."""
        to_identities = unit @ self.table.rows.to(unit.dtype).T / self.temperature
        to_waiting, _ = self.queue.compared(unit)
        return torch.cat([to_identities, to_waiting / self.unlabelled_temperature], dim=1)

    def forward(self, batch: Batch) -> Term:
        unit = F.normalize(batch.labelled_embeddings, dim=1)
        return Term(mean_cross_entropy(self.logits(unit), batch.labelled))

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        self._move(batch)
        self.queue.push(F.normalize(batch.unlabelled_embeddings, dim=1))

    def _move(self, batch: Batch) -> None:
        unit = F.normalize(batch.labelled_embeddings, dim=1)
        self.table.update(unit, batch.labelled, self.momentum, batch.rows.turns)


class InstanceEnhancing(OnlineInstanceMatching):
    """IEL: OIM in which unlabelled people who look like an identity are trained as that identity.

    Our reading of Shi et al. 2018, whose selection rule was not available: an unlabelled row takes the
    identity of the most similar table row if their cosine similarity is at least `threshold`. It then has
    OIM's loss with that identity and stays out of the queue; only true labels move the table.
    """

    fixed_shapes = True

    def __init__(
        self,
        identities: int,
        dim: int,
        *,
        temperature: float = 0.1,
        momentum: float = 0.5,
        queue: int = 5000,
        threshold: float = 0.7,
    ) -> None:
        super().__init__(identities, dim, temperature=temperature, momentum=momentum, queue=queue)
        self.threshold = threshold

    def enhanced(self, unlabelled: Tensor) -> tuple[Tensor, Tensor]:
        """(which unlabelled unit embeddings (U, D) take an identity, the nearest identity of each)."""
        similarity, identity = (unlabelled.detach() @ self.table.rows.to(unlabelled.dtype).T).max(dim=1)
        return similarity >= self.threshold, identity

    def forward(self, batch: Batch) -> Term:
        unlabelled = F.normalize(batch.unlabelled_embeddings, dim=1)
        takes, identity = self.enhanced(unlabelled)
        enhanced, number = takes.sum(), None
        if is_eager_on_cpu(unlabelled):
            unlabelled, identity = unlabelled[takes], identity[takes]
        else:
            identity = identity.masked_fill(~takes, UNLABELLED)
            number = (enhanced + len(batch.labelled)).clamp(min=1)
        unit = torch.cat([F.normalize(batch.labelled_embeddings, dim=1), unlabelled])
        labels = torch.cat([batch.labelled, identity])
        loss = mean_cross_entropy(self.logits(unit), labels, number)
        return Term(loss, {"enhanced_instances": enhanced})

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        unlabelled = F.normalize(batch.unlabelled_embeddings, dim=1)
        takes, _ = self.enhanced(unlabelled)
        self.queue.push(unlabelled, chosen=~takes)
        self._move(batch)
