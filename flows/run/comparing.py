"""Two evaluations compared query by query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.stages.evaluation import PER_QUERY
from personsearch_core.evaluation.comparison import compare_runs
from storage.store import Artifact, Store

Metric = Literal["mAP", "rank1"]

_COLUMNS: dict[Metric, str] = {"mAP": "ap", "rank1": "hit1"}


@dataclass(frozen=True)
class Comparison:
    """The later evaluation against the earlier one, in percentage points, with the 95 % interval."""

    metric: Metric
    difference: float
    low: float
    high: float
    queries: int

    @property
    def points(self) -> str:
        """The difference with its interval, in points."""
        return f"{self.difference:+z.1f} ({self.low:+z.1f} to {self.high:+z.1f})"

    def __str__(self) -> str:
        interval = f"95 % interval {self.low:+z.1f} to {self.high:+z.1f} over {self.queries} queries"
        return f"{self.metric} {self.difference:+z.1f} points ({interval})"


def compare(store: Store, before: Artifact, after: Artifact, metric: Metric) -> Comparison | None:
    """Compare the headlines of two evaluations by the queries that both have; None if they share none.

    Only evaluations with the same recipe say the same by a query's figure: the caller makes sure of it.
    """
    return compare_values(by_query(store, before, metric), by_query(store, after, metric), metric)


def compare_values(
    before: Mapping[str, float], after: Mapping[str, float], metric: Metric
) -> Comparison | None:
    """Compare values by query, fractions, over the queries that both have; None if they share none."""
    shared = sorted(before.keys() & after.keys())
    if not shared:
        return None
    old, new = (100.0 * np.array([values[query] for query in shared]) for values in (before, after))
    difference = compare_runs(old, new, np.random.default_rng(0)).difference
    return Comparison(metric, difference.mean, difference.low, difference.high, len(shared))


def by_query(store: Store, evaluation: Artifact, metric: Metric) -> dict[str, float]:
    """A metric of the headline, which is the first setting, by query: a fraction."""
    folder = store.here(evaluation).path
    column = _COLUMNS[metric]
    table = pq.read_table(folder / PER_QUERY, columns=["setting", "query_id", column])
    if not len(table):
        return {}
    table = table.filter(pc.equal(table["setting"], table["setting"][0]))
    values = (float(value) for value in table[column].to_pylist())
    return dict(zip(map(str, table["query_id"].to_pylist()), values, strict=True))
