"""Small trainings of a branch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from personsearch_core.identities import ReidLabels
from personsearch_core.recipes import ReidRecipe
from personsearch_core.sampling import PKSampler
from personsearch_core.training.loop import LoopSettings
from personsearch_core.training.reid import ReidResult, ReidTraining, train_reid
from personsearch_core.training.row_batches import RowsInMemory
from tests.personsearch_core.training.synthetic_rows import ArrayRows, people, small_branch

OBJECTIVES: dict[str, list[dict[str, Any]]] = {
    "semi_hard": [{"kind": "semi_hard_triplet"}],
    "batch_hard": [{"kind": "batch_hard_triplet"}],
    "softmax": [{"kind": "identity_softmax"}],
    "softmax_center": [{"kind": "identity_softmax"}, {"kind": "center", "weight": 0.01}],
    "oim": [{"kind": "oim", "queue": 20}],
    "iel": [{"kind": "iel", "queue": 20}],
    "ioim_center": [{"kind": "ioim", "queue": 20}, {"kind": "center", "weight": 0.01}],
    "circle": [{"kind": "metric_learning", "loss": "CircleLoss", "miner": "MultiSimilarityMiner"}],
    "hep_olp": [{"kind": "hep_softmax", "hard_identities": 4}, {"kind": "olp"}],
}


def recipe(phases: list[dict[str, Any]] | None = None, **fields: Any) -> ReidRecipe:
    return ReidRecipe.model_validate(
        {
            "branch": {"embedding_dim": 8},
            "phases": phases or [{"objectives": OBJECTIVES["semi_hard"], "epochs": 6}],
            "identities_per_batch": 4,
            "shots": 3,
            "lr": 0.003,
            **fields,
        }
    )


def train(work_dir: Path, wanted: ReidRecipe, **options: Any) -> ReidResult:
    reader, labels = people()
    return train_reid(wanted, small_branch(), reader, labels, work_dir, **options)


def branch_training(objective: dict[str, Any], device: torch.device, **fields: Any) -> ReidTraining:
    """Of two datasets' people, unlabelled ones too, from rows in the device's memory: 12 steps."""
    (a, of_a), (b, of_b) = people(seed=1), people(seed=2)
    reader, labels = ArrayRows(np.concatenate([a.array, b.array])), ReidLabels.joined({"a": of_a, "b": of_b})
    wanted = recipe([{"objectives": [objective], "epochs": 2}], unlabelled_per_batch=2, **fields)
    everyone = np.arange(len(labels))
    sampler = PKSampler(labels, everyone, 4, 3, 2)
    rows = RowsInMemory(reader, device)
    return ReidTraining(wanted, small_branch(), rows, sampler, labels, everyone[:0], device)


def train_with_checkpoints(work_dir: Path) -> None:
    """A training of 60 steps, for a process of its own."""
    torch.set_num_threads(1)
    phases = [{"objectives": [{"kind": "semi_hard_triplet"}], "epochs": 20}]
    train(work_dir, recipe(phases), settings=LoopSettings(checkpoint_steps=5))
