from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personsearch_core.search.top_k import Product, Similarities, copied_product, half_product


def unit_rows(count: int, dimensions: int, seed: int) -> torch.Tensor:
    rows = torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 700),
    dimensions=st.integers(1, 40),
    top=st.integers(1, 60),
    seed=st.integers(0, 10_000),
    kept_part=st.sampled_from([None, 0.0, 0.05, 0.7]),
)
def test_the_best_rows_are_those_of_a_plain_product(
    count: int, dimensions: int, top: int, seed: int, kept_part: float | None
) -> None:
    rows = unit_rows(count, dimensions, seed).half()
    query = unit_rows(1, dimensions, seed + 1)[0]
    kept = None if kept_part is None else np.random.default_rng(seed).random(count) < kept_part
    found, similarity = Similarities(list(rows.split(250)), query).best(top, kept)
    plain = (rows.float() @ query).numpy()
    order = [row for row in np.lexsort((np.arange(count), -plain)) if kept is None or kept[row]][:top]
    np.testing.assert_allclose(similarity, plain[order], atol=1e-6)
    np.testing.assert_allclose(plain[found], plain[order], atol=1e-6)


@pytest.mark.parametrize("opposite", [False, True])
@pytest.mark.parametrize(("length", "kept_part"), [(1.0, None), (1.0, 0.002), (30.0, None)])
def test_the_best_of_many_rows_are_found_by_their_groups(
    length: float, kept_part: float | None, opposite: bool
) -> None:
    """Also where all similarities are negative, and where most groups have no row to choose from."""
    rows = unit_rows(20_000, 8, 3)
    rows = (length * (-rows.abs() if opposite else rows)).half()
    query = unit_rows(1, 8, 4)[0].abs()
    kept = None if kept_part is None else np.random.default_rng(0).random(len(rows)) < kept_part
    found, similarity = Similarities(list(rows.split(7000)), query).best(15, kept)
    plain = (rows.float() @ query).numpy()
    order = np.lexsort((np.arange(len(rows)), -np.where(True if kept is None else kept, plain, -np.inf)))[:15]
    np.testing.assert_allclose(similarity, plain[order], rtol=1e-6)
    np.testing.assert_allclose(plain[found], plain[order], rtol=1e-6)


def test_rounding_does_not_decide_who_is_among_the_best() -> None:
    """Rows that a float16 product cannot tell apart are put in their true order."""
    rows = torch.zeros(5000, 8)
    rows[:, 0] = 1.0
    rows[:, 1] = torch.linspace(0, 0.0625, 5000)[torch.randperm(5000)].half().float()
    query = torch.tensor([1.0, 0.01, 0, 0, 0, 0, 0, 0])
    found, similarity = Similarities([rows.half()], query).best(20)
    assert (np.diff(similarity) <= 0).all()
    assert similarity[-1] >= np.sort((rows.half().float() @ query).numpy())[-20] - 1e-7
    assert len(set(found.tolist())) == 20


@pytest.mark.parametrize("product", [half_product, copied_product])
def test_both_products_agree_with_float32(product: Product) -> None:
    rows, query = unit_rows(5000, 256, 0), unit_rows(1, 256, 1)[0]
    result = torch.empty(5000, dtype=torch.float16)
    product(rows.half(), query, result)
    torch.testing.assert_close(result.float(), rows @ query, atol=1e-3, rtol=0)


def test_long_embeddings_do_not_overflow() -> None:
    rows = torch.full((3, 64), 200.0).half()
    rows[1] = 220.0
    found, similarity = Similarities([rows], torch.full((64,), 90.0)).best(1)
    assert found.tolist() == [1] and similarity[0] == pytest.approx(64 * 220 * 90, rel=1e-5)
