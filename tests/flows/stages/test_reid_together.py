"""The stage `reid` on several processors: what one process trains, by processes that open the features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from flows.config.sections import Processors
from flows.stages.base import Made
from flows.stages.reid import MAKER, TRAINED_BRANCH, Network, Options, TrainingRecipe
from personsearch_core.models.states import load_weights
from personsearch_core.recipes import ReidRecipe
from storage.feature_store import create_features, write_index
from storage.local import LocalStore
from storage.manifest import Identity
from storage.store import Artifact
from tests.flows.stages.test_pinned import Quiet

OBJECTIVES = [{"kind": "batch_hard_triplet"}, {"kind": "identity_softmax"}]
"""Distances alone do not see the last bias: Adam would take steps of noise there."""

RECIPE = TrainingRecipe(
    reid=ReidRecipe.model_validate(
        {
            "branch": {"embedding_dim": 8, "initial_weights": "random", "norm": "group"},
            "phases": [{"objectives": OBJECTIVES, "epochs": 2}],
            "identities_per_batch": 4,
            "shots": 3,
            "lr": 0.001,
        }
    ),
    variant="j4",
    network=Network(backbone="resnet18", norm="group", norm_epsilon=1e-5),
)
PEOPLE, ROWS = 6, 24


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def features(store: LocalStore, number: int) -> Artifact:
    """Random features of six people with four boxes each."""
    with store.making(Identity(kind="features", version=1, recipe={"number": number}, inputs={})) as work:
        rows = np.random.default_rng(number).random((ROWS, 256, 4, 2), np.float32).astype(np.float16)
        with create_features(work.path, ROWS, rows.shape[1:]) as writer:
            writer.write(0, rows)
        names = [f"{row:03d}" for row in range(ROWS)]
        table = {
            "row": range(ROWS),
            "box_id": names,
            "image_id": names,
            "person_id": [f"p{row % PEOPLE}" for row in range(ROWS)],
            "view": ["plain"] * ROWS,
        }
        write_index(work.path, pa.table({name: list(column) for name, column in table.items()}))
        return work.commit("0" * 64, metrics={})


def train(store: LocalStore, work: Path, devices: int) -> Made:
    work.mkdir()
    inputs = {f"features{number}": features(store, number) for number in range(2)}
    options = Options(checkpoint_seconds=60.0, memory_budget=None, datasets=("a", "b"))
    context = MAKER.context(
        RECIPE.model_dump(mode="json"),
        inputs,
        options.model_dump(mode="json"),
        work=work,
        reporter=Quiet(),
        store=store,
        processors=Processors(device="cpu", devices=devices),
    )
    return MAKER.make(context)


@pytest.mark.slow
def test_two_processes_train_the_branch_of_one(store: LocalStore, tmp_path: Path) -> None:
    made = [train(store, tmp_path / f"{devices}", devices) for devices in (1, 2)]
    one, two = (load_weights(tmp_path / devices / TRAINED_BRANCH) for devices in ("1", "2"))
    # Where gradients nearly vanish, rounding decides which way Adam moves a weight, by up to the rate (1e-3).
    torch.testing.assert_close(two, one, rtol=1e-3, atol=5e-4)
    assert made[1].metrics.keys() == made[0].metrics.keys()
    assert made[1].metrics["loss/b"] == pytest.approx(made[0].metrics["loss/b"], rel=1e-3)
