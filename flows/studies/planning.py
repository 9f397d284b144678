"""The plan of a study: its stages with what they wait for and cost, and what fits a budget."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flows.studies.cost import Cost, Estimator
from flows.studies.members import Study, cells_of
from flows.studies.nodes import Node, Nodes


@dataclass(frozen=True)
class PlannedNode:
    """A stage of the plan; `cost` is None for what is built."""

    node: Node
    cost: Cost | None

    @property
    def state(self) -> str:
        if self.node.artifact is not None:
            return "built"
        if self.node.problem is not None:
            return f"cannot run: {self.node.problem}"
        return f"resumes at {self.node.unfinished}" if self.node.unfinished else "runs"

    @property
    def name(self) -> str:
        """The stage's name with the first member that needs it."""
        return f"{self.node.stage.name} of {self.node.members[0]}"

    def as_data(self) -> dict[str, Any]:
        node, cost = self.node, self.cost
        return {
            "number": node.number,
            "stage": node.stage.name,
            "kind": node.stage.kind,
            "members": node.members,
            "state": self.state,
            "artifact": None if node.artifact is None else node.artifact.name,
            "waits_for": [each.number for each in node.waits_for],
            "gpu_seconds": None if cost is None or not cost.uses_gpu else cost.gpu_seconds,
            "cpu_seconds": None if cost is None else cost.cpu_seconds,
            "disk_bytes": None if cost is None else cost.disk_bytes,
            "memory_bytes": None if cost is None else cost.memory_bytes,
            "basis": None if cost is None else cost.basis,
        }


@dataclass(frozen=True)
class Totals:
    """Of the stages that are to be built, and the number of those without an estimate."""

    stages: int
    gpu_seconds: float
    """On a GPU, without the stages that do not use one."""
    other_seconds: float
    """Of those stages."""
    cpu_seconds: float
    """Of all stages without a GPU."""
    disk_bytes: int
    memory_bytes: int
    """Of the largest stage."""
    unknown: int


@dataclass
class StudyPlan:
    """All stages of a study, and what is missing before any of them can run."""

    study: Study
    nodes: Nodes
    stages: list[PlannedNode]
    absent: list[str] = field(default_factory=list)
    """Datasets that are not there, in words."""
    left_out: list[str] = field(default_factory=list)
    """Members that the budget has no room for."""

    @property
    def missing(self) -> list[PlannedNode]:
        return [each for each in self.stages if each.cost is not None]

    @property
    def kinds(self) -> Mapping[str, int]:
        """Number of artifacts by kind, built or not."""
        return Counter(each.node.stage.kind for each in self.stages)

    @property
    def totals(self) -> Totals:
        costs = [each.cost for each in self.stages if each.cost is not None]
        return Totals(
            stages=len(costs),
            gpu_seconds=sum(cost.gpu_seconds or 0.0 for cost in costs if cost.uses_gpu),
            other_seconds=sum(cost.cpu_seconds or 0.0 for cost in costs if not cost.uses_gpu),
            cpu_seconds=sum(cost.cpu_seconds or 0.0 for cost in costs),
            disk_bytes=sum(cost.disk_bytes or 0 for cost in costs),
            memory_bytes=max((cost.memory_bytes or 0 for cost in costs), default=0),
            unknown=sum(cost.cpu_seconds is None for cost in costs),
        )

    def as_data(self) -> dict[str, Any]:
        """For other programs."""
        return {
            "study": str(self.study.path),
            "title": self.study.title,
            "members": list(self.study.members),
            "left_out": self.left_out,
            "absent": self.absent,
            "kinds": dict(self.kinds),
            "stages": [each.as_data() for each in self.stages],
            "totals": self.totals.__dict__,
        }


def plan_study(study: Study, nodes: Nodes, estimator: Estimator) -> StudyPlan:
    """The plan of a study whose members are those of `nodes`."""
    stages = [
        PlannedNode(node, estimator.cost(node) if node.artifact is None else None) for node in nodes.nodes
    ]
    absent = nodes.loader.absent or {}
    return StudyPlan(study, nodes, stages, [text for root, text in absent.items() if root not in study.drawn])


def within_budget(plan: StudyPlan, seconds: float, gpu: bool) -> list[str]:
    """The members that fit a time: those that fill the most cells per hour first.

    Choices are single members, and all members that share a stage, since one detector may serve many. A stage
    is paid once. Raises ValueError when a stage's time is unknown.
    """
    costs = {each.node.number: each.cost.seconds(gpu) for each in plan.missing if each.cost is not None}
    unknown = [each.name for each in plan.missing if costs[each.node.number] is None]
    if unknown:
        raise ValueError(f"the time of {unknown[0]} cannot be estimated before its dataset is read")
    needs = {
        name: frozenset(node.number for node in stages.values() if node.artifact is None)
        for name, stages in plan.nodes.of_member.items()
    }
    return _chosen(
        {number: cost or 0.0 for number, cost in costs.items()}, needs, _cells(plan.study), seconds
    )


def _cells(study: Study) -> Counter[str]:
    """Cells by member; a cell of several seeds counts a part for each."""
    return Counter(name for _, _, cell in cells_of(study.tables) for name in cell.members)


def _bundles(needs: Mapping[str, frozenset[int]]) -> list[frozenset[str]]:
    """Each member alone, and the members of each stage."""
    by_stage: dict[int, set[str]] = defaultdict(set)
    for name, numbers in needs.items():
        for number in numbers:
            by_stage[number].add(name)
    alone = (frozenset([name]) for name in needs)
    return list(dict.fromkeys([*alone, *map(frozenset, by_stage.values())]))


def _chosen(
    costs: Mapping[int, float], needs: Mapping[str, frozenset[int]], cells: Mapping[str, int], budget: float
) -> list[str]:
    """Members, bundle after bundle with the most cells per second among those that still fit."""
    bundles = _bundles(needs)
    chosen, paid, spent = set[str](), set[int](), 0.0
    while True:
        offers = []
        for at, bundle in enumerate(bundles):
            new = bundle - chosen
            value = sum(cells[name] for name in new)
            unpaid = {number for name in new for number in needs[name]} - paid
            price = sum(costs[number] for number in unpaid)
            if value and spent + price <= budget:
                offers.append((value / max(price, 1e-9), -at, new, unpaid, price))
        if not offers:
            return [name for name in needs if name in chosen]
        _, _, new, unpaid, price = max(offers, key=lambda offer: offer[:2])
        chosen |= new
        paid |= unpaid
        spent += price
