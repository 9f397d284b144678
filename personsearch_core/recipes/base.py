"""What recipes are made of, and what several stages choose alike."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Variant = Literal["j2", "j3", "j4", "disj"]
Probability = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
"""NumPy's generators take no negative one."""
Precision = Literal["fp32", "bf16", "fp16"]


class Recipe(BaseModel):
    """Base of all recipes: unknown fields are refused, instances are immutable and hashable.

    The sentence below a field is its description, also for those who ask for it at run time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Compute(Recipe):
    """How numbers are computed where it changes them; part of the key."""

    precision: Precision = "fp32"
    channels_last: bool = False
    """Memory layout of convolutions; quicker on most CPUs and with bf16 on GPUs."""
    compile: bool = False
    """By torch.compile, which takes a while at the start: pays on GPUs."""


class Schedule(Recipe):
    """Linear-cosine decay (Bello et al. 2017, as in TensorFlow) after a linear warm-up."""

    kind: Literal["linear_cosine", "constant"] = "linear_cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    warmup_factor: Probability = 0.001
    """Part of the rate at the first step of the warm-up."""
    num_periods: float = 0.5
    """Periods of the cosine; with alpha and beta as in TensorFlow's linear_cosine_decay."""
    alpha: float = 0.0
    """Added to the linear part."""
    beta: float = 0.001
    """Added to the product of both."""
