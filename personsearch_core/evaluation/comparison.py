"""How certain a mean over queries is, and whether one run beats another on the same queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.records import BoolArray, FloatArray, IntArray

_BLOCK_DRAWS = 100


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class RunComparison:
    """Run B against run A, query by query. `order` sorts queries from gain to loss.

    `p_value` is two-sided, from a paired randomisation test: under the null hypothesis each query's
    difference has a random sign.
    """

    difference: Interval
    p_value: float
    n_better: int
    n_worse: int
    n_equal: int
    order: IntArray


def bootstrap_interval(
    values: FloatArray | BoolArray,
    rng: np.random.Generator,
    *,
    draws: int = 2000,
) -> Interval:
    """The mean of per-query values (q,) with a 95 % percentile interval over resampled queries.

    Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".
    """
    if not len(values):
        raise PersonSearchError("a confidence interval needs at least one query")
    if draws < 1:
        raise PersonSearchError(f"draws must be positive, not {draws}")
    values = values.astype(np.float64)
    means = np.empty(draws)
    for start in range(0, draws, _BLOCK_DRAWS):
        size = min(_BLOCK_DRAWS, draws - start)
        means[start : start + size] = values[rng.integers(0, len(values), (size, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def query_interval(values: FloatArray | BoolArray, draws: int, seed: int) -> Interval:
    """The interval of an evaluation with this seed: every figure (q,) has the same resampled queries."""
    return bootstrap_interval(values, np.random.default_rng(seed), draws=draws)


def compare_runs(
    first: FloatArray, second: FloatArray, rng: np.random.Generator, *, draws: int = 2000
) -> RunComparison:
    """Compare per-query values (q,), usually AP, of two runs over the same queries."""
    if len(first) != len(second):
        raise PersonSearchError(
            f"the runs have {len(first)} and {len(second)} queries, but must have the same"
        )
    difference = second.astype(np.float64) - first.astype(np.float64)
    interval = bootstrap_interval(difference, rng, draws=draws)
    as_extreme = 0
    for start in range(0, draws, _BLOCK_DRAWS):
        signs = rng.choice([-1.0, 1.0], (min(_BLOCK_DRAWS, draws - start), len(difference)))
        # A sum in another order may be smaller than the observed one by rounding.
        as_extreme += int((np.abs((signs * difference).mean(axis=1)) >= abs(interval.mean) - 1e-15).sum())
    return RunComparison(
        difference=interval,
        p_value=(as_extreme + 1) / (draws + 1),
        n_better=int((difference > 0).sum()),
        n_worse=int((difference < 0).sum()),
        n_equal=int((difference == 0).sum()),
        order=np.argsort(-difference, kind="stable"),
    )
