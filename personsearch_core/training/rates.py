"""How many images per second a training takes while it has a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

UNTIMED_STEPS = 2
"""The first steps compile, choose kernels and fill pools of memory: seconds that no later step takes."""


class StepRate:
    """Times a training's steps, without what they wait for and without the first ones.

    On a GPU that waits for its loader, a step is timed while it is launched: its rate is an upper bound.

    Parameters
    ----------
    clock
        The time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._begun = 0
        self._first: tuple[int, float] | None = None
        self._apart = 0.0

    def begin(self, step: int) -> None:
        """Note that a step begins; `step` counts from 0, or from where a training goes on."""
        self._begun += 1
        if self._begun == UNTIMED_STEPS + 1:
            self._first, self._apart = (step, self._clock()), 0.0

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What is done within does not belong to steps: waiting for a batch, a validation."""
        started = self._clock()
        try:
            yield
        finally:
            self._apart += self._clock() - started

    def per_second(self, done: int) -> float | None:
        """Steps per second before step `done`; None while too few have been timed."""
        if self._first is None or done <= self._first[0]:
            return None
        first, started = self._first
        return (done - first) / (self._clock() - started - self._apart)
