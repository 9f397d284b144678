"""The results of two sides, test by test: paired differences, and the queries that moved most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flows.compare.sides import Side
from flows.errors import ConfigError
from flows.run.comparing import Comparison, Metric, by_query, compare_values
from storage.store import Artifact, Store

METRICS: dict[Metric, str] = {"mAP": "mAP", "rank1": "rank-1"}
"""What is compared, with titles."""


@dataclass(frozen=True)
class MovedQuery:
    """A query whose average precision, a fraction, differs."""

    query_id: str
    before: float
    after: float


@dataclass(frozen=True)
class TestDifference:
    """One test: the evaluations, their headlines (fractions), and the paired comparison of each metric.

    `compared` are None where the evaluations share no query. `only_before` and `only_after` count queries
    that one side alone has: they move its headline, and not the comparison.
    """

    __test__ = False

    dataset: str
    before: Artifact
    after: Artifact
    headline: Mapping[Metric, tuple[float, float]]
    compared: Mapping[Metric, Comparison | None]
    only_before: int
    only_after: int
    moved: Sequence[MovedQuery]
    n_moved: int
    """How many queries differ at all."""

    def as_data(self) -> dict[str, Any]:
        """Differences are in percentage points, all else are fractions."""
        return {
            "dataset": self.dataset,
            "a": self.before.name,
            "b": self.after.name,
            "metrics": {
                name: {
                    "a": self.headline[name][0],
                    "b": self.headline[name][1],
                    "compared": comparison_data(self.compared[name]),
                }
                for name in METRICS
            },
            "only_a": self.only_before,
            "only_b": self.only_after,
            "moved": self.n_moved,
            "moved_most": [asdict(each) for each in self.moved],
        }


def comparison_data(compared: Comparison | None) -> dict[str, Any] | None:
    """A comparison in percentage points, for other programs."""
    if compared is None:
        return None
    return {name: getattr(compared, name) for name in ("difference", "low", "high", "queries")}


def shared_tests(before: Side, after: Side) -> dict[str, tuple[Artifact, Artifact]]:
    """The evaluations of both sides, by the test that they share; a single one on each side is the same test.

    Raises ConfigError if there is none.
    """
    names = [name for name in before.evaluations if name in after.evaluations]
    if names:
        return {name: (before.evaluations[name], after.evaluations[name]) for name in names}
    if len(before.evaluations) == len(after.evaluations) == 1:
        ((name, one),), (other,) = before.evaluations.items(), after.evaluations.values()
        return {name: (one, other)}
    tests = (", ".join(sorted(side.evaluations)) for side in (before, after))
    raise ConfigError(
        f"{before.given} and {after.given} have no test in common: the first is tested on {next(tests)}, the "
        f"second on {next(tests)}"
    )


def compare_tests(before: Side, after: Side, store: Store, moved: int) -> list[TestDifference]:
    """Every test that both sides have; the `moved` queries that differ most in AP are named."""
    return [
        _compare(dataset, one, other, store, moved)
        for dataset, (one, other) in shared_tests(before, after).items()
    ]


def _compare(dataset: str, before: Artifact, after: Artifact, store: Store, moved: int) -> TestDifference:
    values = {name: (by_query(store, before, name), by_query(store, after, name)) for name in METRICS}
    old, new = values["mAP"]
    moved_queries = [
        MovedQuery(name, old[name], new[name]) for name in old.keys() & new.keys() if old[name] != new[name]
    ]
    moved_queries.sort(key=lambda query: (-abs(query.after - query.before), query.query_id))
    return TestDifference(
        dataset,
        before,
        after,
        {name: (before.manifest.metrics[name], after.manifest.metrics[name]) for name in METRICS},
        {name: compare_values(*values[name], name) for name in METRICS},
        len(old.keys() - new.keys()),
        len(new.keys() - old.keys()),
        moved_queries[:moved],
        len(moved_queries),
    )
