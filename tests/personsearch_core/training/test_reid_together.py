"""A branch trained by two processes: the losses, gradients, memories and validations of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from torch import nn

from personsearch_core.errors import PersonSearchError
from personsearch_core.models.states import load_weights
from personsearch_core.recipes import ReidRecipe
from personsearch_core.training.checkpoints import load_newest
from personsearch_core.training.group import Together
from personsearch_core.training.loop import CHECKPOINTS
from personsearch_core.training.reid import ReidTraining, train_reid
from tests.forking import start
from tests.personsearch_core.training.test_reid_several import two_datasets

RECIPE = {
    "branch": {"embedding_dim": 8},
    "phases": [
        {
            "objectives": [
                {"kind": "batch_hard_triplet"},
                {"kind": "oim", "queue": 20},
                {"kind": "center", "weight": 0.01},
            ],
            "epochs": 1,
        },
        {"objectives": [{"kind": "semi_hard_triplet"}, {"kind": "identity_softmax"}], "epochs": 1},
    ],
    "identities_per_batch": 5,
    "shots": 3,
    "unlabelled_per_batch": 4,
    "lr": 0.003,
    "held_out_identities": 0.25,
    "keep": "best",
}
"""19 rows per batch, so that two processes have unequal shares; softmax has weights of its own to learn."""


def branch() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(4, 16, 1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 8, 8)
        )


def train(work_dir: Path, gradients: Path | None = None, **options: Any) -> None:
    """Train, and note the gradients of the first step."""
    step, noted = ReidTraining.step, False

    def watched(training: ReidTraining, number: int) -> Any:
        nonlocal noted
        metrics = step(training, number)
        if not noted and gradients is not None:
            torch.save([part.grad for part in training.branch.parameters()], gradients)
        noted = True
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReidTraining, "step", watched)
        train_reid(ReidRecipe.model_validate(RECIPE), branch(), *two_datasets(), work_dir, **options)


def train_rank(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "meeting"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    group = Together(torch.device("cpu"))
    train(folder / "two", folder / f"gradients-{rank}.pt", group=group)
    dist.destroy_process_group()


def test_two_processes_train_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    ranks = [start(train_rank, tmp_path, rank) for rank in range(2)]
    train(tmp_path / "one", tmp_path / "gradients.pt")
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 0
    gradients = torch.load(tmp_path / "gradients.pt")
    for number in range(2):
        found = torch.load(tmp_path / f"gradients-{number}.pt")
        torch.testing.assert_close(found, gradients, rtol=1e-5, atol=1e-6)
    one, two = (load_weights(tmp_path / part / "branch.safetensors") for part in ("one", "two"))
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)
    curves = [pq.read_table(tmp_path / part / "history.parquet").to_pandas() for part in ("one", "two")]
    assert list(curves[0]) == list(curves[1]) and {"loss/a", "loss/b", "validation/a/mAP"} <= {*curves[0]}
    for name in curves[0]:
        np.testing.assert_allclose(curves[1][name], curves[0][name], rtol=2e-3, atol=1e-4, err_msg=name)
    memories = [load_newest(tmp_path / part / CHECKPOINTS) for part in ("one", "two")]
    assert memories[0] is not None and memories[1] is not None
    torch.testing.assert_close(
        memories[1].state["objectives"], memories[0].state["objectives"], rtol=1e-3, atol=1e-4
    )
    described = [json.loads((tmp_path / part / "branch.json").read_text()) for part in ("one", "two")]
    assert described[0]["identities_per_epoch"] == described[1]["identities_per_epoch"]


class _Two(Together):
    def __init__(self) -> None:
        self.rank, self.count = 0, 2


def test_what_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    recipe = ReidRecipe.model_validate(RECIPE)
    normed = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8))
    with pytest.raises(
        PersonSearchError, match="norm: batch cannot be synchronised between processes on a CPU"
    ):
        train_reid(recipe, normed, *two_datasets(), tmp_path, group=_Two())
    few = recipe.model_copy(update={"identities_per_batch": 1, "shots": 1})
    with pytest.raises(PersonSearchError, match="2 devices cannot share a batch of 1 identities"):
        train_reid(few, branch(), *two_datasets(), tmp_path, group=_Two())
