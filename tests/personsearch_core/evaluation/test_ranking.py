from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from personsearch_core.evaluation.ranking import (
    FoundTruths,
    SearchResult,
    count_at_least,
    count_positives_at_least,
    rank_result,
    step_average_precision,
)


def result_of(similarities: list[float], positives: list[int], n_truths: int) -> SearchResult:
    """One query that ranks `similarities`, of which `positives` are right."""
    values = np.array(similarities, np.float32)
    levels = values[positives]
    query = np.zeros(len(levels), np.int64)
    found = FoundTruths(
        query, query, query, levels, count_at_least(values, levels), count_positives_at_least(query, levels)
    )
    above = int((values > levels.max()).sum()) if len(levels) else 0
    return rank_result(found, np.array([n_truths]), np.array([len(values)]), np.array([above]), None)


@pytest.mark.parametrize("n_levels", [1, 5, 40, 300])
def test_counts_are_the_same_however_they_are_made(n_levels: int) -> None:
    rng = np.random.default_rng(n_levels)
    values = rng.integers(0, 50, 1000).astype(np.float32)
    levels = rng.choice(values, n_levels)
    assert count_at_least(values, levels).tolist() == [(values >= level).sum() for level in levels]


def test_step_ap_groups_ties_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.integers(0, 6, 20)
        positives = rng.choice(20, int(rng.integers(1, 8)), replace=False)
        expected = average_precision_score(np.isin(np.arange(20), positives), values)
        result = result_of(values.tolist(), positives.tolist(), len(positives))
        assert result.mean_ap == pytest.approx(expected, abs=1e-12)


def test_a_tied_positive_ranks_last_and_is_counted_as_ambiguous() -> None:
    tied = result_of([0.5, 0.9, 0.9, 0.1], [1], n_truths=1)
    assert (tied.rank[0], tied.lucky_rank[0], tied.ambiguous) == (2, 1, 1)
    assert not tied.hits(1)[0] and tied.hits(5)[0]
    assert tied.mean_ap == 0.5
    # Two positives in the tie: one negative may come first, so rank 2 at worst.
    assert result_of([0.9, 0.9, 0.9], [0, 1], n_truths=2).rank[0] == 2


def test_a_tie_that_decides_no_reported_rank_is_not_ambiguous() -> None:
    assert result_of([1.0, 0.9, 0.9, 0.1], [1], n_truths=1).ambiguous == 0


def test_ap_is_scaled_by_recall_and_nothing_found_is_a_miss() -> None:
    half = result_of([0.9, 0.8], [0], n_truths=2)
    assert (half.mean_ap, half.recall[0], half.top(1)) == (0.5, 0.5, 1.0)
    nothing = result_of([0.9, 0.8], [], n_truths=2)
    assert (nothing.mean_ap, nothing.top(10), nothing.rank[0], nothing.mean_inp) == (0.0, 0.0, 0, 0.0)
    without = result_of([0.9], [], n_truths=0)
    assert (without.mean_ap, without.without_truth) == (0.0, 1)


def test_minp_goes_by_the_hardest_positive() -> None:
    assert result_of([0.9, 0.8, 0.7, 0.6], [0, 3], n_truths=2).mean_inp == 0.5
    assert result_of([0.9, 0.8, 0.7, 0.6], [0, 3], n_truths=4).mean_inp == 0.25


def test_curves() -> None:
    result = result_of([0.9, 0.8, 0.7, 0.6], [1, 3], n_truths=2)
    assert result.cmc(4).tolist() == [0.0, 1.0, 1.0, 1.0]
    recall, precision = result.precision_recall(levels=5)
    assert recall.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert precision.tolist() == [0.5] * 5
    _, of_half = result_of([0.9, 0.8], [0], n_truths=2).precision_recall(levels=5)
    assert of_half.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_per_query_table_has_one_row_a_query() -> None:
    columns = result_of([0.9], [0], n_truths=1).per_query()
    assert {"query", "ap", "hit1", "hit5", "hit10", "recall", "ambiguous"} <= columns.keys()
    assert {len(column) for column in columns.values()} == {1}


def test_no_positive_at_all() -> None:
    empty = np.zeros(0, np.int64)
    found = FoundTruths(empty, empty, empty, np.zeros(0, np.float32), empty, empty)
    assert step_average_precision(found, np.array([3, 0])).tolist() == [0.0, 0.0]
    assert count_positives_at_least(empty, np.zeros(0, np.float32)).tolist() == []
