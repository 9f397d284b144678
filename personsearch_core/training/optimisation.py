"""Optimisers, rates and gradients, shared by all trainers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from personsearch_core.recipes import Compute


def build_optimiser(
    kind: Literal["sgd", "adam", "adamw"],
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """An optimiser over the parameters that require a gradient; `momentum` is for `sgd` only.

    `fused` updates all parameters in one kernel.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if kind == "sgd":
        return torch.optim.SGD(trainable, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=fused)
    optimiser = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    return optimiser(trainable, lr=lr, weight_decay=weight_decay, fused=fused)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def gradient_scaler(compute: Compute, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling for fp16, whose gradients underflow; otherwise does nothing."""
    return torch.amp.GradScaler(device.type, enabled=compute.precision == "fp16")


def take_step(
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    clip: float | None = None,
) -> Tensor:
    """Backward pass, then `apply_gradients`."""
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(scaler.scale(loss))
    return apply_gradients(optimiser, scaler, clip)


def apply_gradients(
    optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, clip: float | None = None
) -> Tensor:
    """Gradient clipping and optimiser step; returns the gradient norm before clipping."""
    scaler.unscale_(optimiser)
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip)
    scaler.step(optimiser)
    scaler.update()
    return norm
