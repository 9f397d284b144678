"""The base class of recipes, and choices that several stages share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Variant = Literal["j2", "j3", "j4", "disj"]
Probability = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
"""NumPy's generators accept no negative seed."""
Precision = Literal["fp32", "bf16", "fp16"]
Side = Annotated[int, Field(gt=0, le=4096)]
"""Pixels of an image's side. Bounded, as other sizes are, because a model may come from anywhere: one that
asks for terabytes is refused before it is built."""
InputSide = Annotated[int, Field(ge=32, le=4096)]
"""Pixels of a side of a detector's input: at least one cell of C5, whose stride is 32."""


class Recipe(BaseModel):
    """Base of all recipes: rejects unknown fields; instances are immutable and hashable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


def later(default: Any) -> Any:
    """Marks a field that is younger than artifacts that exist: at its default it is left out of a dump.

    So the keys of artifacts that were made before the field hold.
    """
    return Field(exclude_if=lambda value: value == default)


class Compute(Recipe):
    """How numbers are computed, as far as that changes them; part of the key."""

    precision: Precision = "fp32"
    channels_last: bool = False
    """Memory layout of convolutions; faster on most CPUs, and with bf16 on GPUs."""
    compile: bool = False
    """Use torch.compile: for a detector, one graph for its training step and one for its inference; for a
    branch, one graph for its training step if the objectives allow it, else its blocks. Takes a minute or
    more to start: worth it for long trainings and many images."""


class Schedule(Recipe):
    """Linear-cosine decay (Bello et al. 2017, as in TensorFlow) after a linear warm-up."""

    kind: Literal["linear_cosine", "constant"] = "linear_cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    warmup_factor: Probability = 0.001
    """Factor on the rate at the first step of the warm-up."""
    num_periods: float = 0.5
    """Periods of the cosine; with alpha and beta as in TensorFlow's linear_cosine_decay."""
    alpha: float = 0.0
    """Added to the linear part."""
    beta: float = 0.001
    """Added to the product of the linear part and the cosine."""
