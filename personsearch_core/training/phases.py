"""The phases of a training, any of which may end early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any


class Phases:
    """Which phase a step belongs to. If one ends early, later ones move up; checkpoints hold the ends."""

    def __init__(self, planned_ends: Sequence[int]) -> None:
        self.planned = planned_ends[-1]
        """Steps of all phases together when none ends early."""
        self._lengths = [end - start for start, end in pairwise((0, *planned_ends))]
        self._ends = list(planned_ends)
        self._done = 0

    def at(self, step: int) -> int:
        """Number of the phase of a 0-based step."""
        return next(number for number, end in enumerate(self._ends) if step < end)

    def position(self, step: int) -> int:
        """Position of a step in the plan: steps that were skipped count as done."""
        return step + self.planned - self._ends[-1]

    def within(self, step: int) -> tuple[int, int]:
        """(position of a step in its phase, steps that the phase was planned to have)."""
        phase = self.at(step)
        return step - (self._ends[phase - 1] if phase else 0), self._lengths[phase]

    def advance(self, done: int) -> None:
        """Record that `done` steps are done."""
        self._done = done

    def end_now(self) -> None:
        """End the phase of the last step."""
        phase = self.at(self._done - 1)
        spared = self._ends[phase] - self._done
        self._ends[phase:] = [end - spared for end in self._ends[phase:]]

    @property
    def at_an_end(self) -> bool:
        """Whether the last step was the last of its phase."""
        return self._done in self._ends

    @property
    def finished(self) -> bool:
        """Whether all phases have ended."""
        return self._done >= self._ends[-1]

    def state_dict(self) -> dict[str, Any]:
        return {"ends": list(self._ends), "done": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._ends, self._done = list(state["ends"]), state["done"]
