"""Training a branch from the rows of several datasets."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional as F

from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import UNLABELLED, ReidLabels
from personsearch_core.losses.build import build_objective
from personsearch_core.losses.objective import Batch
from personsearch_core.losses.oim import OnlineInstanceMatching
from personsearch_core.recipes import Objective, ReidRecipe
from personsearch_core.training.reid import ReidResult, ReidTraining, train_reid
from personsearch_core.training.row_batches import RowsInMemory, RowsReadAhead, open_batches
from personsearch_core.training.watching import losses_by_source, positions_by_source
from tests.personsearch_core.training.synthetic_rows import ArrayRows, people, small_branch


def recipe(objective: dict[str, Any], **fields: Any) -> ReidRecipe:
    return ReidRecipe.model_validate(
        {
            "branch": {"embedding_dim": 8},
            "phases": [{"objectives": [objective], "epochs": 4}],
            "identities_per_batch": 6,
            "shots": 3,
            "lr": 0.003,
            **fields,
        }
    )


def two_datasets() -> tuple[ArrayRows, ReidLabels]:
    """24 people of `a`, 12 of `b` who have the same ids, and unlabelled people of both."""
    (rows_a, a), (rows_b, b) = people(24, seed=1, unlabelled=30), people(12, seed=2, unlabelled=10)
    return ArrayRows(np.concatenate([rows_a.array, rows_b.array])), ReidLabels.joined({"a": a, "b": b})


def train(work_dir: Path, wanted: ReidRecipe, **options: Any) -> ReidResult:
    return train_reid(wanted, small_branch(), *two_datasets(), work_dir, **options)


def test_curves_and_validation_by_dataset(tmp_path: Path) -> None:
    wanted = recipe({"kind": "semi_hard_triplet"}, held_out_identities=0.25, keep="best")
    result = train(tmp_path, wanted)
    assert result.identities_per_epoch == {"a": 18, "b": 9}
    assert json.loads((tmp_path / "branch.json").read_text())["identities_per_epoch"] == {"a": 18, "b": 9}
    history = pq.read_table(tmp_path / "history.parquet").to_pandas()
    assert len(history) == 4 * 5
    assert history[["loss/a", "loss/b"]].notna().all().all()
    metrics = result.metrics
    own = [metrics["validation/a/mAP"], metrics["validation/b/mAP"]]
    assert metrics["validation/mAP"] == pytest.approx(np.mean(own))
    assert metrics["validation/best_mAP"] >= metrics["validation/mAP"]


def test_amounts_change_what_an_epoch_takes(tmp_path: Path) -> None:
    amounts = [SimpleNamespace(proportion=part, repeat=None, choose=None) for part in (1, 2)]
    result = train(tmp_path, recipe({"kind": "identity_softmax"}), amounts=amounts)
    assert result.identities_per_epoch == {"a": 12, "b": 24}
    assert (result.steps, result.training_identities) == (4 * 6, 36)


def test_oim_has_a_row_per_identity_of_both_and_queues_both_datasets_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    objectives: list[Any] = []
    labels = two_datasets()[1]
    step = ReidTraining.step

    def watched(training: ReidTraining, number: int) -> Any:
        rows = training.sampler.batch(number)
        seen.append(np.bincount(labels.source[rows[labels.label[rows] == UNLABELLED]], minlength=2))
        objectives[:] = [training.objectives[0].terms[0]]  # type: ignore[index]
        return step(training, number)

    monkeypatch.setattr(ReidTraining, "step", watched)
    train(tmp_path, recipe({"kind": "oim", "queue": 50}, unlabelled_per_batch=6))
    oim = objectives[0]
    assert isinstance(oim, OnlineInstanceMatching)
    assert oim.table.rows.shape == (36, 8)
    assert (oim.table.rows.norm(dim=1) > 0.99).all(), "every identity of both was seen"
    assert [counts.tolist() for counts in seen] == [[4, 2]] * 24
    assert (oim.queue.filled, int(oim.queue.pushed)) == (50, 24 * 6)


def test_the_losses_of_datasets_make_up_the_whole_and_change_nothing() -> None:
    objective = build_objective((Objective(kind="oim", queue=4),), identities=4, dim=8)
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, UNLABELLED, UNLABELLED])
    batch = Batch(torch.randn(10, 8, generator=generator), labels)
    objective.update(batch)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    source = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 1])
    positions = positions_by_source(source, labels.numpy(), ("a", "b"))
    found = losses_by_source(objective, batch, positions, labels.numpy())
    assert F.l1_loss(torch.stack([*found.values()]).mean(), objective(batch).loss) < 1e-6
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    assert positions_by_source(source, labels.numpy(), ("a",)) == {}
    assert list(positions_by_source(source[[0, 1, 4, 6]], np.array([0, 0, 2, 3]), ("a", "b"))) == ["b"]


def test_watching_the_datasets_changes_no_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = recipe({"kind": "metric_learning", "loss": "ArcFaceLoss", "miner": "DistanceWeightedMiner"})
    train(tmp_path / "watched", wanted)
    monkeypatch.setattr(ReidTraining, "_positions", lambda *_: {})
    train(tmp_path / "alone", wanted)
    weights = [(tmp_path / name / "branch.safetensors").read_bytes() for name in ("watched", "alone")]
    assert weights[0] == weights[1]


def test_the_memory_budget_is_for_all_datasets_together() -> None:
    both = two_datasets()[0]
    largest = people(24, seed=1, unlabelled=30)[0].array.nbytes
    on_cpu = torch.device("cpu")
    assert isinstance(open_batches(both, 8, on_cpu, memory_budget=both.array.nbytes), RowsInMemory)
    assert isinstance(open_batches(both, 8, on_cpu, memory_budget=largest), RowsReadAhead)


def test_held_out_people_of_each_dataset_must_be_in_two_images(tmp_path: Path) -> None:
    rows, labels = people(24)
    once = ReidLabels.from_columns(
        [f"{number}" for number in range(20)] * 2, [f"{number}" for number in range(20)] * 2
    )
    both = ArrayRows(np.concatenate([rows.array, rows.array[:40]]))
    with pytest.raises(PersonSearchError, match=r"^b: no held-out person is in two images"):
        train_reid(
            recipe({"kind": "semi_hard_triplet"}, held_out_identities=0.25),
            small_branch(),
            both,
            ReidLabels.joined({"a": labels, "b": once}),
            tmp_path,
        )
