"""A compiled re-ID step as one graph: the branch, its objectives and the gradients through them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from personsearch_core.losses import mining
from personsearch_core.models.branch import build_branch
from personsearch_core.recipes import ReidRecipe
from personsearch_core.recipes.reid import OBJECTIVE_FIELDS
from personsearch_core.training.group import Alone
from personsearch_core.training.reid_losses import ReidLosses, StepLosses
from tests.personsearch_core.counting_graphs import counted_graphs
from tests.personsearch_core.scene_files import TINY

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 0, 0, 2, 2, 2, 3, 3, 3, -1, -1])
BY_SOURCE = {"a": np.arange(6), "b": np.arange(3, 11)}
TRIPLETS = ("semi_hard_triplet", "batch_hard_triplet")


@pytest.fixture
def graphs() -> Iterator[CompileCounterWithBackend]:
    """Counts the graphs that `torch.compile` is given; backward passes are traced, no code is generated."""
    with counted_graphs("aot_eager") as counter:
        yield counter


def recipe(objectives: list[dict[str, Any]], pooling: str = "average", **compute: Any) -> ReidRecipe:
    """Of two phases with the same objectives."""
    phase = {"objectives": objectives, "epochs": 1}
    return ReidRecipe.model_validate(
        {
            "branch": {"embedding_dim": 8, "initial_weights": "random", "pooling": pooling},
            "phases": [phase, phase],
            "unlabelled_per_batch": 2,
            "compute": compute,
        }
    )


def losses(wanted: ReidRecipe) -> ReidLosses:
    """Of a branch with one block."""
    branch = build_branch("j4", TINY, wanted.branch)
    layer = branch.blocks.get_submodule("layer4")
    assert isinstance(layer, nn.Sequential)
    branch.blocks = layer[:1]
    return ReidLosses(wanted, branch.train(), 4, CPU, Alone())


def step(of: ReidLosses, features: Tensor, phase: int) -> tuple[StepLosses, dict[str, Tensor | None]]:
    """What a step measures, and its gradients."""
    of.zero_grad()
    found = of(features, LABELS.numpy(), phase, BY_SOURCE)
    found.loss.backward()
    return found, {name: each.grad for name, each in of.named_parameters()}


def features(seed: int) -> Tensor:
    return torch.randn(len(LABELS), 256, 4, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("pooling", ["average", "gem"])
def test_branch_and_losses_are_one_graph_per_phase(
    graphs: CompileCounterWithBackend, pooling: str, precision: str
) -> None:
    """Losses, what is watched, embeddings and gradients are the eager ones."""
    wanted = [{"kind": kind} for kind in TRIPLETS]
    plain = losses(recipe(wanted, pooling, precision=precision))
    whole = losses(recipe(wanted, pooling, precision=precision, compile=True))
    for number in range(4):
        phase = number // 2
        expected, found = (step(each, features(number), phase) for each in (plain, whole))
        tolerance = 1e-5 if precision == "fp32" else 2e-2
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
        assert graphs.frame_count == phase + 1


@pytest.mark.parametrize("kind", sorted(OBJECTIVE_FIELDS.keys() - {"metric_learning", *TRIPLETS}))
def test_so_are_other_objectives_with_their_memories(graphs: CompileCounterWithBackend, kind: str) -> None:
    """Through steps that fill a memory beyond its size."""
    options: dict[str, Any] = {"queue": 5} if "queue" in OBJECTIVE_FIELDS[kind] else {}
    wanted = [{"kind": kind, **options}, {"kind": "batch_hard_triplet"}]
    plain, whole = (losses(recipe(wanted, compile=compiled)) for compiled in (False, True))
    for number in range(4):
        results = [step(each, features(number), 0) for each in (plain, whole)]
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
        for each, (found, _) in zip((plain, whole), results, strict=True):
            each.objective(0).update(found.batch)
        torch.testing.assert_close(whole.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)
    assert graphs.frame_count == 1


def test_objectives_that_cannot_be_traced_leave_the_branch_one_graph(
    graphs: CompileCounterWithBackend,
) -> None:
    wanted = [{"kind": "metric_learning", "loss": "CircleLoss", "miner": "MultiSimilarityMiner"}]
    plain, whole = (losses(recipe(wanted, compile=compiled)) for compiled in (False, True))
    expected, found = (step(each, features(0), 0) for each in (plain, whole))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert graphs.frame_count == 1


def test_too_many_semi_hard_triplets_leave_the_branch_one_graph(
    graphs: CompileCounterWithBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are mined by pairs then, of which there are as many as the labels say."""
    monkeypatch.setattr(mining, "TRIPLES_AT_ONCE", len(LABELS) ** 3 - 1)
    wanted = [{"kind": kind} for kind in TRIPLETS]
    plain, whole = (losses(recipe(wanted, compile=compiled)) for compiled in (False, True))
    results = [step(each, features(0), 0) for each in (plain, whole)]
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
    assert graphs.frame_count == 1


def test_a_step_that_breaks_is_refused(graphs: CompileCounterWithBackend) -> None:
    class Breaking(nn.Module):
        def forward(self, pooled: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return pooled

    whole = losses(recipe([{"kind": kind} for kind in TRIPLETS], compile=True))
    whole.branch = nn.Sequential(Breaking(), whole.branch)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        step(whole, features(0), 0)
