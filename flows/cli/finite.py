"""Options that are numbers: what `float` takes and no measure knows is refused."""

from __future__ import annotations

import math

import typer


def finite(value: float | None) -> float | None:
    """A callback of an option: its value, unless that is NaN or infinite."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value
