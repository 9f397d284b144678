"""An objective of another package: found by its entry point, checked, trained, and keyed by its version."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from personsearch_core.identities import UNLABELLED
from personsearch_core.losses import Batch, build, build_objective
from personsearch_core.losses.objective import BatchRows, rows_of
from personsearch_core.recipes import Objective, ReidRecipe, objective_versions
from personsearch_core.training.reid import ReidResult, train_reid
from tests import third_party as third_party_package
from tests.personsearch_core.on_meta import META, no_waiting_copies, without_autocast
from tests.personsearch_core.training.reid_trainings import branch_training
from tests.personsearch_core.training.synthetic_rows import people, small_branch


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site-packages"
    third_party_package.install_objective(folder)
    monkeypatch.syspath_prepend(folder)
    for module in ("additive_margin", "broken_margin"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    build._try.cache_clear()
    return folder


def train(work_dir: Path, epochs: int, lr: float) -> ReidResult:
    phase = {
        "objectives": [{"kind": "additive_margin", "options": {"margin": 0.2, "scale": 8}}],
        "epochs": epochs,
    }
    recipe = ReidRecipe.model_validate(
        {
            "branch": {"embedding_dim": 8},
            "phases": [phase],
            "identities_per_batch": 8,
            "shots": 3,
            "lr": lr,
            "held_out_identities": 0.3,
            "validate_every_epochs": epochs,
        }
    )
    reader, labels = people(identities=40, boxes=5, unlabelled=40)
    return train_reid(recipe, small_branch(), reader, labels, work_dir)


def test_the_guide_shows_the_example() -> None:
    guide = (third_party_package.OBJECTIVE.parents[1] / "adding-an-objective.md").read_text()
    for name in ("additive_margin.py", "pyproject.toml"):
        assert (third_party_package.OBJECTIVE / name).read_text() in guide
    assert (third_party_package.OBJECTIVE / "additive_margin.py").read_text().count("\n") <= 30


def test_it_trains(package: Path, tmp_path: Path) -> None:
    untrained = train(tmp_path / "untrained", 1, 1e-12)
    trained = train(tmp_path / "trained", 40, 0.003)
    assert trained.metrics["validation/mAP"] > 1.1 * untrained.metrics["validation/mAP"]
    assert trained.metrics["correct"] > 10 / trained.training_identities
    assert trained.metrics["loss/additive_margin"] > 0


def test_its_step_does_not_wait_for_a_gpu(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_autocast(monkeypatch)
    with closing(branch_training({"kind": "additive_margin"}, META, fused_optimiser=False)) as training:
        training.step(0)
        with no_waiting_copies():
            assert training.step(1)["correct"].is_meta  # type: ignore[union-attr]


def test_it_is_one_graph(package: Path) -> None:
    objective = build_objective((Objective(kind="additive_margin"),), identities=4, dim=8)
    labels = torch.tensor([0, 0, 1, 2, UNLABELLED])
    batch = torch.randn(5, 8), labels, rows_of(labels, labels)

    def loss(embeddings: Tensor, labels: Tensor, rows: BatchRows) -> Tensor:
        found: Tensor = objective(Batch(embeddings, labels, rows)).loss
        return found

    graph = torch.compile(loss, backend="aot_eager", fullgraph=True)
    assert objective.has_fixed_shapes(5)
    torch.testing.assert_close(graph(*batch), loss(*batch))


def test_its_version_is_part_of_the_key(package: Path) -> None:
    def versions(*kinds: str) -> dict[str, int]:
        return objective_versions(Objective(kind=kind) for kind in kinds)

    assert versions("oim") == {}
    assert versions("oim", "additive_margin", "additive_margin") == {"additive_margin": 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "additive_margi"}, r"choose semi_hard_triplet, .*did you mean 'additive_margin'\?"),
        ({"options": {"margn": 1}}, "no option 'margn'; did you mean 'margin'"),
        ({"options": {"dim": 1}}, "no option 'dim'"),
        (
            {"options": {"margin": "wide"}},
            "'additive_margin' cannot be computed with these options: TypeError",
        ),
        ({"temperature": 0.1}, "additive_margin has no temperature"),
    ],
)
def test_its_options_are_checked_when_the_recipe_is_read(
    package: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        Objective.model_validate({"kind": "additive_margin", **fields})


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('no licence')", "cannot be loaded: RuntimeError: no licence"),
        ("def AdditiveMargin(identities, dim): return identities", "must be a ReidObjective, not a int"),
        ("class AdditiveMargin:\n    def __init__(self, dim): ...", "cannot be built: TypeError"),
    ],
)
def test_a_broken_package_is_named(package: Path, code: str, message: str) -> None:
    (package / "broken_margin.py").write_text(code)
    points = next(package.glob("*.dist-info")) / "entry_points.txt"
    points.write_text("[personsearch.objectives]\nadditive_margin = broken_margin:AdditiveMargin\n")
    with pytest.raises(ValidationError, match=f"'additive_margin'.*{message}"):
        Objective(kind="additive_margin")
