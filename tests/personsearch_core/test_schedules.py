"""Schedules against the formula written out, and by their properties."""

from __future__ import annotations

import math

import pytest

from personsearch_core.recipes import Schedule
from personsearch_core.schedules import linear_cosine_decay, rate_factor


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1.001), (50, 0.5 * 0.5 + 0.001), (100, 0.001), (170, 0.001)]
)
def test_linear_cosine_at_known_points(step: int, expected: float) -> None:
    assert linear_cosine_decay(step, 100) == pytest.approx(expected, abs=1e-15)


def test_linear_cosine_with_other_parameters() -> None:
    expected = (0.2 + 0.7) * 0.5 * (1 + math.cos(2 * math.pi * 2.0 * 30 / 100)) + 0.05
    assert linear_cosine_decay(30, 100, num_periods=2.0, alpha=0.2, beta=0.05) == pytest.approx(expected)


def test_warm_up_rises_to_the_decay() -> None:
    schedule = Schedule(warmup_steps=10, warmup_factor=0.1)
    factors = [rate_factor(schedule, step, 1000) for step in range(12)]
    assert factors[0] == pytest.approx(0.1 * 1.001)
    assert factors[:11] == sorted(factors[:11])
    assert factors[10] == pytest.approx(linear_cosine_decay(10, 1000))


def test_constant_stays() -> None:
    schedule = Schedule(kind="constant")
    assert {rate_factor(schedule, step, 10) for step in range(20)} == {1.0}
