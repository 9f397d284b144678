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
    """Base of all recipes: unknown fields are refused, instances are immutable and hashable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Compute(Recipe):
    """How numbers are computed where it changes them; part of the key."""

    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False


class Schedule(Recipe):
    """Linear-cosine decay (Bello et al. 2017, as in TensorFlow) after a linear warm-up."""

    kind: Literal["linear_cosine", "constant"] = "linear_cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    warmup_factor: Probability = 0.001
    num_periods: float = 0.5
    alpha: float = 0.0
    beta: float = 0.001
