"""A training that saves checkpoints, and must survive a death at any of its calls."""

from __future__ import annotations

from pathlib import Path

import torch

from personsearch_core.training.checkpoints import load_newest, save_checkpoint
from tests.crash.bench import Operation, Outcome
from tests.crash.stores import nothing

STEPS = 4


def train(folder: Path) -> None:
    """Goes on from the newest checkpoint, and saves one after each step."""
    newest = load_newest(folder / "checkpoints")
    step, total = (newest.step, newest.state["sum"]) if newest else (0, torch.zeros(50))
    while step < STEPS:
        step, total = step + 1, total + step
        save_checkpoint(folder / "checkpoints", step, {"sum": total})


def check_training(folder: Path) -> list[str]:
    newest = load_newest(folder / "checkpoints")
    if newest is None:
        return []
    right = torch.full((50,), sum(range(newest.step)), dtype=torch.float32)
    return [] if torch.equal(newest.state["sum"], right) else [f"step {newest.step} has another state"]


def outcome_of_training(folder: Path) -> Outcome:
    newest = load_newest(folder / "checkpoints")
    assert newest is not None
    return {"step": newest.step, "sum": newest.state["sum"].tolist()}


CHECKPOINTS = Operation("checkpoints", nothing, train, check_training, outcome_of_training)
