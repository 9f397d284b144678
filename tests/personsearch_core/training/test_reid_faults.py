"""What goes wrong in a training from cached rows is said: where, and what to change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import ReidLabels
from personsearch_core.training.loop import NonFiniteError
from personsearch_core.training.reid import train_reid
from personsearch_core.training.watching import CollapseError
from tests.personsearch_core.training.reid_trainings import OBJECTIVES, recipe, train
from tests.personsearch_core.training.synthetic_rows import ArrayRows, people, small_branch


class PullTogether(nn.Module):
    """A branch that shrinks everything to a point, faster and faster."""

    def __init__(self, dead: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * 4 * 2, 8)
        self.calls = 0
        self.dead_after = 15 if dead else None

    def forward(self, x):  # type: ignore[no-untyped-def]
        self.calls += self.training
        scale = 1e-6 if self.dead_after is not None and self.calls > self.dead_after else 1.0
        return self.linear(x.flatten(1)) * scale


@pytest.mark.parametrize("objective", ["semi_hard", "batch_hard"])
def test_collapse_is_named_within_50_steps(tmp_path: Path, objective: str) -> None:
    reader, labels = people()
    wanted = recipe([{"objectives": OBJECTIVES[objective], "epochs": 100}], lr=1e-4)
    with pytest.raises(
        CollapseError, match=r"collapsed by step (\d+).*same point.*Lower lr.*semi_hard"
    ) as caught:
        train_reid(wanted, PullTogether(dead=True), reader, labels, tmp_path)
    step = int(str(caught.value).split("by step ")[1].split(":")[0])
    assert 15 < step <= 15 + 50
    train_reid(wanted, PullTogether(dead=False), reader, labels, tmp_path / "alive")


def test_out_of_memory_says_what_to_change(tmp_path: Path) -> None:
    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ torch.empty(2**50, 2**10)

    reader, labels = people()
    with pytest.raises(PersonSearchError, match=r"out of memory: lower identities_per_batch \(4\)"):
        train_reid(recipe(), _WithParameter(Large()), reader, labels, tmp_path)


def test_other_errors_of_a_branch_are_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    reader, labels = people()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train_reid(recipe(), _WithParameter(nn.Linear(3, 8)), reader, labels, tmp_path)


class _WithParameter(nn.Module):
    """What it wraps, with something to optimise."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * self.scale


def test_bad_rows_are_named(tmp_path: Path) -> None:
    reader, labels = people(unlabelled=0)
    reader.array[17] = np.nan
    with pytest.raises(NonFiniteError, match=r"loss is nan at step \d+; the batch holds rows \[.*\b17\b"):
        train_reid(recipe(), small_branch(), reader, labels, tmp_path)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    empty = ReidLabels.from_columns([], [])
    with pytest.raises(PersonSearchError, match="nothing to train on: the store has 0 rows"):
        train_reid(recipe(), small_branch(), ArrayRows(np.zeros((0, 4, 4, 2), np.float16)), empty, tmp_path)


def test_store_of_another_variant(tmp_path: Path) -> None:
    reader, labels = people(channels=6)
    with pytest.raises(PersonSearchError, match=r"rows of \(6, 4, 2\).*maps of 4 channels.*another variant"):
        train_reid(recipe(), small_branch(), reader, labels, tmp_path)


def test_index_of_another_store(tmp_path: Path) -> None:
    reader, _ = people()
    _, labels = people(identities=3)
    with pytest.raises(PersonSearchError, match="the index has 28 rows, the features have 82"):
        train_reid(recipe(), small_branch(), reader, labels, tmp_path)


def test_best_needs_people_held_out(tmp_path: Path) -> None:
    with pytest.raises(PersonSearchError, match="need held_out_identities above 0"):
        train(tmp_path, recipe(keep="best"))


def test_no_people_to_validate_with_is_told_before_the_first_step(tmp_path: Path) -> None:
    reader, labels = people()
    once_each = replace(labels, image=np.maximum(labels.label, 0))
    with pytest.raises(PersonSearchError, match="no held-out person is in two images"):
        train_reid(recipe(held_out_identities=0.25), small_branch(), reader, once_each, tmp_path)
    assert not (tmp_path / "history.jsonl").exists()
