"""How long a running study will still take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from flows.studies.cost import Estimator
from flows.studies.nodes import Nodes

_UNKNOWN_SECONDS = 10.0
"""Stands for the time of a stage without an estimate."""


@dataclass
class Remaining:
    """Estimates of the stages to come, corrected by how long the stages of their kind have taken so far."""

    nodes: Nodes
    estimator: Estimator
    slots: int
    clock: Callable[[], float] = time.monotonic
    _estimates: dict[int, float] = field(default_factory=dict)
    _begun: dict[int, float] = field(default_factory=dict)
    _taken: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """By kind: seconds estimated and taken."""

    def __post_init__(self) -> None:
        for node in self.nodes.missing:
            found = self.estimator.cost(node).seconds(self.estimator.gpu)
            self._estimates[node.number] = _UNKNOWN_SECONDS if found is None else found

    def begin(self, member: str, stage: str) -> None:
        self._begun[self.nodes.of_member[member][stage].number] = self.clock()

    def end(self, member: str, stage: str) -> None:
        node = self.nodes.of_member[member][stage]
        begun = self._begun.pop(node.number, None)
        estimate = self._estimates.pop(node.number, None)
        if begun is not None and estimate is not None:
            self._taken[node.stage.kind].append((estimate, self.clock() - begun))

    @property
    def seconds(self) -> float | None:
        """None until a stage has ended."""
        if not self._taken:
            return None
        overall = _ratio([pair for pairs in self._taken.values() for pair in pairs])
        now, total = self.clock(), 0.0
        for number, estimate in self._estimates.items():
            taken = self._taken.get(self.nodes.nodes[number].stage.kind)
            expected = estimate * (_ratio(taken) if taken else overall)
            total += max(0.0, expected - (now - self._begun.get(number, now)))
        return total / self.slots


def _ratio(pairs: list[tuple[float, float]]) -> float:
    return sum(taken for _, taken in pairs) / sum(estimate for estimate, _ in pairs)
