"""The two rates that a training prints beside each other."""

from __future__ import annotations

import math

import pytest
import torch

from personsearch_core.data.loader import UNTIMED_ARRIVALS, Rate
from personsearch_core.data.prefetch import brought
from personsearch_core.training.rates import UNTIMED_STEPS, StepRate


class Clock:
    """A time that goes on when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("start", [0, 400])
def test_steps_are_timed_without_the_first_ones_and_without_waiting(start: int) -> None:
    clock = Clock()
    rate = StepRate(clock)
    for step in range(start, start + UNTIMED_STEPS):
        rate.begin(step)
        clock.now += 30.0  # compiles
        assert rate.per_second(step + 1) is None
    for step in range(start + UNTIMED_STEPS, start + UNTIMED_STEPS + 8):
        rate.begin(step)
        assert rate.per_second(step) in (None, 4.0)
        with rate.apart():
            clock.now += 5.0
        clock.now += 0.25
    assert rate.per_second(start + UNTIMED_STEPS + 8) == 4.0


def test_a_loader_is_as_quick_as_its_slowest_part() -> None:
    rate = Rate(threads=4)
    assert math.isnan(rate.per_second)
    rate.add([0.5, 0.5])
    assert rate.per_second == 8.0
    for _ in range(UNTIMED_ARRIVALS):
        rate.add_arrival(10, 60.0)  # starts the device
    rate.add_arrival(10, 0.5)
    assert rate.per_second == 8.0
    rate.add_arrival(10, 4.5)
    assert rate.per_second == 4.0


def test_what_arrives_is_timed() -> None:
    seen: list[tuple[int, float]] = []
    items = (number for number in range(3))
    arrived = brought(
        items, torch.tensor, torch.device("cpu"), took=lambda item, took: seen.append((int(item), took))
    )
    assert [int(item) for item in arrived] == [number for number, _ in seen] == [0, 1, 2]
    assert all(took >= 0 for _, took in seen)
