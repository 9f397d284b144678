"""Re-ID losses: distances, miners and objectives that combine."""

from personsearch_core.losses.build import build_objective
from personsearch_core.losses.objective import Batch, ReidObjective, Term
from personsearch_core.losses.triplet import batch_hard_triplet_loss, semi_hard_triplet_loss

__all__ = [
    "Batch",
    "ReidObjective",
    "Term",
    "batch_hard_triplet_loss",
    "build_objective",
    "semi_hard_triplet_loss",
]
