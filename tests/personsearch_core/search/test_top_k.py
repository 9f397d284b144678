from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personsearch_core.search import top_k
from personsearch_core.search.top_k import CoarseRows, Similarities

Searched = Callable[[Sequence[torch.Tensor], torch.Tensor], Similarities]


def over_copies(blocks: Sequence[torch.Tensor], query: torch.Tensor) -> Similarities:
    return Similarities(blocks, query)


def over_coarse_rows(blocks: Sequence[torch.Tensor], query: torch.Tensor) -> Similarities:
    parts = [part for block in blocks for part in block.split(900)]
    return Similarities(blocks, query, CoarseRows.of(parts, sum(map(len, blocks)), len(query)))


both_ways = pytest.mark.parametrize("searched", [over_copies, over_coarse_rows])


def unit_rows(count: int, dimensions: int, seed: int) -> torch.Tensor:
    rows = torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


@both_ways
@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 700),
    dimensions=st.integers(1, 40),
    top=st.integers(1, 60),
    seed=st.integers(0, 10_000),
    kept_part=st.sampled_from([None, 0.0, 0.05, 0.7]),
)
def test_the_best_rows_are_those_of_a_plain_product(
    searched: Searched, count: int, dimensions: int, top: int, seed: int, kept_part: float | None
) -> None:
    rows = unit_rows(count, dimensions, seed).half()
    query = unit_rows(1, dimensions, seed + 1)[0]
    kept = None if kept_part is None else np.random.default_rng(seed).random(count) < kept_part
    found, similarity = searched(list(rows.split(250)), query).best(top, kept)
    plain = (rows.float() @ query).numpy()
    order = [row for row in np.lexsort((np.arange(count), -plain)) if kept is None or kept[row]][:top]
    np.testing.assert_allclose(similarity, plain[order], atol=1e-6)
    np.testing.assert_allclose(plain[found], plain[order], atol=1e-6)


@both_ways
@pytest.mark.parametrize("opposite", [False, True])
@pytest.mark.parametrize(("length", "kept_part"), [(1.0, None), (1.0, 0.002), (30.0, None)])
def test_the_best_of_many_rows_are_found_by_their_groups(
    searched: Searched, length: float, kept_part: float | None, opposite: bool
) -> None:
    """Also where all similarities are negative, and where most groups have no row to choose from."""
    rows = unit_rows(20_000, 8, 3)
    rows = (length * (-rows.abs() if opposite else rows)).half()
    query = unit_rows(1, 8, 4)[0].abs()
    kept = None if kept_part is None else np.random.default_rng(0).random(len(rows)) < kept_part
    found, similarity = searched(list(rows.split(7000)), query).best(15, kept)
    plain = (rows.float() @ query).numpy()
    order = np.lexsort((np.arange(len(rows)), -np.where(True if kept is None else kept, plain, -np.inf)))[:15]
    np.testing.assert_allclose(similarity, plain[order], rtol=1e-6)
    np.testing.assert_allclose(plain[found], plain[order], rtol=1e-6)


@both_ways
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [1e-3, 1e-2, 0.1])
def test_rounding_does_not_decide_who_is_among_the_best(searched: Searched, seed: int, spread: float) -> None:
    """Rows that a coarse product cannot tell apart are put in their true order, beside long ones."""
    generator = torch.Generator().manual_seed(seed)
    centre = unit_rows(1, 64, seed)[0]
    rows = centre + spread * torch.randn(6000, 64, generator=generator) / 8
    across = torch.randn(6000, 64, generator=generator)
    across -= (across @ centre)[:, None] * centre
    rows[::3] = 0.9 * centre + across[::3]
    rows = rows.half()
    query = centre + 0.01 * torch.randn(64, generator=generator)
    found, similarity = searched(list(rows.split(2500)), query).best(20)
    plain = rows.double() @ query.double()
    assert similarity.tolist() == pytest.approx(plain.sort(descending=True).values[:20].tolist(), abs=2e-6)
    assert similarity.tolist() == pytest.approx(plain[found].tolist(), abs=2e-6)
    assert (np.diff(similarity) <= 0).all() and len(set(found.tolist())) == 20


@both_ways
def test_a_product_is_off_by_no_more_than_it_says(searched: Searched) -> None:
    rows, query = 30 * unit_rows(5000, 256, 0).half(), unit_rows(1, 256, 1)[0]
    similarities = searched([rows], query)
    quick = top_k._values(similarities._quick)
    exact = (rows.double() @ query.double()).numpy()
    off = np.abs(quick - exact)
    assert (off <= similarities._error + 2.0**-8 * np.abs(exact)).all()
    assert similarities._error < 0.2, "and the bound is worth something"


@both_ways
def test_many_rows_alike_are_all_compared(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_k, "COPIED_ROWS", 100)
    rows = torch.ones(3000, 4).half()
    rows[1234, 0] = 1.001
    found, _ = searched(list(rows.split(1100)), torch.ones(4)).best(3)
    assert found.tolist() == [1234, 0, 1]


@both_ways
def test_long_embeddings_do_not_overflow(searched: Searched) -> None:
    rows = torch.full((3, 64), 200.0).half()
    rows[1] = 220.0
    found, similarity = searched([rows], torch.full((64,), 90.0)).best(1)
    assert found.tolist() == [1] and similarity[0] == pytest.approx(64 * 220 * 90, rel=1e-5)
