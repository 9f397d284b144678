"""A collapse is named within 50 steps, however noisy, early or late; a healthy run never is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from personsearch_core.recipes import PAPER_PHASES, Objective, Phase
from personsearch_core.training.watching import CollapseError, CollapseWatch

SEMI_HARD, BATCH_HARD = 0, 1
LEVEL = {SEMI_HARD: 1.0, BATCH_HARD: math.log(2)}
NAMES = {SEMI_HARD: "loss/semi_hard_triplet", BATCH_HARD: "loss/batch_hard_triplet"}
Row = dict[str, float]


def row(phase: int, loss: float, distance: float, norm: float = 5.0) -> Row:
    return {
        "phase": phase,
        NAMES[phase]: loss,
        "negative_distance": distance,
        "embedding_norm": norm,
    }


def collapsed(phase: int, distance: float = 1e-3, norm: float = 5.0) -> Row:
    return row(phase, LEVEL[phase], distance, norm)


def healthy(steps: int, phase: int = SEMI_HARD, *, seed: int = 0, growing: bool = True) -> Iterator[Row]:
    """A loss that begins near the collapse level and falls, noisily, while negatives move apart."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        left = math.exp(-step / 300) if growing else 1.0
        loss = LEVEL[phase] * (0.2 + 0.8 * left) * rng.uniform(0.9, 1.1)
        yield row(phase, loss, (4.0 - 3.0 * left) * rng.uniform(0.7, 1.3))


def named_at(rows: Iterable[Row], watch: CollapseWatch | None = None) -> int | None:
    """The step at which the watch raises."""
    watch = watch or CollapseWatch(PAPER_PHASES)
    for step, each in enumerate(rows):
        try:
            watch(step, each)
        except CollapseError:
            return step
    return None


def noisy(phase: int, steps: int) -> list[Row]:
    """A collapse in which every fifth batch is off the level."""
    rows = [collapsed(phase) for _ in range(steps)]
    for step in range(0, steps, 5):
        rows[step] = row(phase, 1.1 * LEVEL[phase], 1e-3)
    return rows


@pytest.mark.parametrize("phase", [SEMI_HARD, BATCH_HARD])
def test_a_noisy_collapse_is_named(phase: int) -> None:
    step = named_at([*healthy(100, phase), *noisy(phase, 200)])
    assert step is not None and 100 <= step <= 150


@pytest.mark.parametrize("phase", [SEMI_HARD, BATCH_HARD])
@pytest.mark.parametrize(("distance", "norm"), [(0.02, 5.0), (5e-5, 1e-3), (0.004, 1.0)])
def test_a_collapse_from_the_first_step_is_named(phase: int, distance: float, norm: float) -> None:
    step = named_at([collapsed(phase, distance, norm)] * 200)
    assert step is not None and step <= 50


@pytest.mark.parametrize("before", [0, 1, 10, 19])
def test_a_collapse_shortly_before_a_phase_change_is_named(before: int) -> None:
    """Its distances are 5 % of the first phase's, and the second knows no others."""
    rest = [collapsed(SEMI_HARD, 0.05)] * before + [collapsed(BATCH_HARD, 0.05, norm=0.2)] * 200
    step = named_at([*healthy(100, growing=False), *rest])
    assert step is not None and 100 <= step <= 150


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_is_never_named(seed: int) -> None:
    rows = [*healthy(3000, seed=seed), *healthy(3000, BATCH_HARD, seed=seed)]
    assert named_at(rows) is None


def test_a_stagnant_run_whose_negatives_are_apart_is_not_a_collapse() -> None:
    assert named_at([row(BATCH_HARD, LEVEL[BATCH_HARD], 0.3)] * 500) is None


def test_a_single_large_distance_does_not_make_the_others_small() -> None:
    rows = [row(BATCH_HARD, LEVEL[BATCH_HARD], 0.5)] * 300
    rows[40] = row(BATCH_HARD, LEVEL[BATCH_HARD], 20.0)
    assert named_at(rows) is None


def test_the_watch_goes_on_from_a_checkpoint() -> None:
    rows = [*healthy(100), *noisy(SEMI_HARD, 200)]
    whole = named_at(rows)
    first, second = CollapseWatch(PAPER_PHASES), CollapseWatch(PAPER_PHASES)
    assert named_at(rows[:110], first) is None
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    rest = named_at(rows[110:], second)
    assert rest is not None and rest + 110 == whole


@pytest.mark.parametrize("collapsed_term", [0, 1])
def test_each_of_two_terms_of_one_kind_has_its_margin(collapsed_term: int) -> None:
    terms = tuple(Objective(kind="batch_hard_triplet", margin=margin) for margin in (0.3, 0.6))
    names, levels = ("loss/batch_hard_triplet", "loss/batch_hard_triplet_2"), (0.3, 0.6)
    watch = CollapseWatch((Phase(objectives=terms, epochs=1),))
    losses = [0.1, 0.1]
    losses[collapsed_term] = levels[collapsed_term]
    measured = {"phase": 0, "negative_distance": 1e-3, "embedding_norm": 5.0}
    rows = [measured | dict(zip(names, losses, strict=True))] * 50
    assert named_at(rows, watch) is not None
