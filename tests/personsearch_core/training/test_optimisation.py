"""Optimisers and the step that every trainer takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from personsearch_core.models.compute import autocast
from personsearch_core.recipes import Compute
from personsearch_core.training.optimisation import build_optimiser, gradient_scaler, set_rate, take_step

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
@pytest.mark.parametrize("fused", [False, True])
def test_kinds(kind: str, expected: type, fused: bool) -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    optimiser = build_optimiser(kind, model.parameters(), lr=0.1, fused=fused)  # type: ignore[arg-type]
    assert type(optimiser) is expected
    assert len(optimiser.param_groups[0]["params"]) == 1
    set_rate(optimiser, 0.5)
    assert optimiser.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("clip", [None, 0.1])
def test_step_returns_the_norm_before_clipping(clip: float | None) -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimiser = build_optimiser("sgd", [weight], lr=1.0, momentum=0.0)
    norm = take_step(0.5 * weight.square().sum(), optimiser, gradient_scaler(Compute(), CPU), clip)
    assert norm == pytest.approx(5.0)
    moved = torch.tensor([3.0, 4.0]) - weight.detach()
    assert moved.norm() == pytest.approx(5.0 if clip is None else clip, rel=1e-4)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_follows_the_recipe(precision: str, dtype: torch.dtype) -> None:
    compute = Compute.model_validate({"precision": precision})
    with autocast(compute, CPU):
        assert nn.Linear(3, 2)(torch.zeros(1, 3)).dtype == dtype
    assert not gradient_scaler(compute, CPU).is_enabled()
