"""Triplet losses against literal versions and pytorch-metric-learning, values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor

from personsearch_core.errors import PersonSearchError
from personsearch_core.losses import batch_hard_triplet_loss, semi_hard_triplet_loss
from personsearch_core.losses.mining import Triplets
from personsearch_core.losses.triplet import Margin, active_fraction, check_batch
from tests.personsearch_core.losses.literal import loop_batch_hard, loop_semi_hard, tensorflow_semi_hard

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
Loss = Callable[[Tensor], Tensor]


def with_gradient(loss: Loss, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    leaf = embeddings.clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def assert_equal(ours: Loss, theirs: Loss, embeddings: Tensor) -> None:
    """Ours in the embeddings' precision against theirs in float64."""
    tolerance = TOLERANCE[embeddings.dtype]
    value, gradient = with_gradient(ours, embeddings)
    expected_value, expected_gradient = with_gradient(theirs, embeddings.double())
    torch.testing.assert_close(value.double(), expected_value, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=tolerance, atol=tolerance)


def pk_batch(seed: int, identities: int, shots: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(identities, 1, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(identities, shots, dim, generator=generator, dtype=torch.float64)
    embeddings = (centres + noise).reshape(-1, dim).to(dtype)
    return embeddings, torch.arange(identities).repeat_interleave(shots)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_semi_hard_is_tensorflows(seed: int, squared: bool, dtype: torch.dtype) -> None:
    embeddings, labels = pk_batch(seed, 8, 4, 6, dtype)
    embeddings = torch.nn.functional.normalize(embeddings, dim=1) if seed % 2 else embeddings
    assert_equal(
        lambda e: semi_hard_triplet_loss(e, labels, margin=1.0, squared=squared),
        lambda e: tensorflow_semi_hard(e, labels, 1.0, squared),
        embeddings,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("margin", ["soft", 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_batch_hard_is_the_definition(seed: int, margin: Any, dtype: torch.dtype) -> None:
    embeddings, labels = pk_batch(seed, 6, 4, 5, dtype)
    assert_equal(
        lambda e: batch_hard_triplet_loss(e, labels, margin=margin),
        lambda e: loop_batch_hard(e, labels, margin),
        embeddings,
    )


@pytest.mark.parametrize("margin", ["soft", 0.3])
def test_batch_hard_is_pytorch_metric_learnings(margin: Any) -> None:
    embeddings, labels = pk_batch(0, 16, 4, 32, torch.float64)
    unnormalised = LpDistance(normalize_embeddings=False)
    miner = BatchHardMiner(distance=unnormalised)
    soft = margin == "soft"
    loss = TripletMarginLoss(
        margin=0.0 if soft else margin,
        smooth_loss=soft,
        distance=unnormalised,
        reducer=MeanReducer(),
    )
    assert_equal(
        lambda e: batch_hard_triplet_loss(e, labels, margin=margin),
        lambda e: loss(e, labels, miner(e, labels)),
        embeddings,
    )


coordinates = st.sampled_from([-1.5, -0.5, 0.0, 0.25, 1.0, 2.0])
batches = st.integers(2, 10).flatmap(
    lambda size: st.tuples(
        st.lists(st.tuples(coordinates, coordinates, coordinates), min_size=size, max_size=size),
        st.lists(st.integers(0, 3), min_size=size, max_size=size),
    )
)


@settings(max_examples=150, deadline=None)
@given(batches)
def test_any_batch_gives_the_defined_value_and_a_finite_gradient(
    batch: tuple[list[tuple[float, float, float]], list[int]],
) -> None:
    """Coarse coordinates make duplicates, zeros, single identities and single shots likely."""
    embeddings, labels = torch.tensor(batch[0], dtype=torch.float64), torch.tensor(batch[1])
    pairs: list[tuple[Loss, Loss]] = [
        (lambda e: semi_hard_triplet_loss(e, labels), lambda e: loop_semi_hard(e, labels, 1.0)),
        (lambda e: batch_hard_triplet_loss(e, labels), lambda e: loop_batch_hard(e, labels, "soft")),
        (lambda e: batch_hard_triplet_loss(e, labels, 0.3), lambda e: loop_batch_hard(e, labels, 0.3)),
    ]
    for ours, literal in pairs:
        value, gradient = with_gradient(ours, embeddings)
        torch.testing.assert_close(value, literal(embeddings), rtol=1e-6, atol=1e-6)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("loss", [semi_hard_triplet_loss, batch_hard_triplet_loss])
@pytest.mark.parametrize(
    "labels",
    [pytest.param([0, 0, 0, 0], id="one identity"), pytest.param([0, 1, 2, 3], id="one shot")],
)
def test_no_triplet_is_zero_with_a_gradient(loss: Callable[..., Tensor], labels: list[int]) -> None:
    value, gradient = with_gradient(lambda e: loss(e, torch.tensor(labels)), torch.randn(4, 3))
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(semi_hard_triplet_loss, 1.0), (batch_hard_triplet_loss, 0.6931471805599453)],
)
def test_collapsed_embeddings_give_the_margin(loss: Callable[..., Tensor], expected: float) -> None:
    value, gradient = with_gradient(lambda e: loss(e, torch.tensor([0, 0, 1, 1])), torch.zeros(4, 3))
    assert value == pytest.approx(expected)
    assert (gradient == 0).all()


@pytest.mark.parametrize("loss", [semi_hard_triplet_loss, batch_hard_triplet_loss])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32_distances(loss: Callable[..., Tensor], dtype: torch.dtype) -> None:
    embeddings, labels = pk_batch(0, 8, 4, 64, torch.float32)
    half = (30 * embeddings).to(dtype)
    value, gradient = with_gradient(lambda e: loss(e, labels), half)
    expected, _ = with_gradient(lambda e: loss(e, labels), half.float())
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert value == expected


def test_near_duplicates_keep_their_distance_in_float32() -> None:
    far_from_origin = torch.full((4, 8), 100.0)
    far_from_origin[:, 0] += torch.tensor([0.0, 0.01, 0.03, 0.06])
    assert_equal(
        lambda e: batch_hard_triplet_loss(e, torch.tensor([0, 0, 1, 1])),
        lambda e: loop_batch_hard(e, torch.tensor([0, 0, 1, 1]), "soft"),
        far_from_origin,
    )


@pytest.mark.parametrize("loss", [semi_hard_triplet_loss, batch_hard_triplet_loss])
def test_unlabelled_rows_are_negatives_only(loss: Callable[..., Tensor]) -> None:
    """A batch with unlabelled rows equals one in which each of them is somebody else and no anchor."""
    embeddings, labels = pk_batch(1, 4, 3, 5, torch.float64)
    unlabelled = torch.zeros(12, dtype=torch.bool)
    unlabelled[9:] = True
    value = loss(embeddings, labels, unlabelled=unlabelled)
    distinct = torch.cat([labels[:9], torch.tensor([100, 101, 102])])
    assert value == pytest.approx(float(loss(embeddings, distinct)))
    assert value != pytest.approx(float(loss(embeddings[:9], labels[:9])))


@pytest.mark.parametrize("loss", [semi_hard_triplet_loss, batch_hard_triplet_loss])
def test_wrong_shapes_are_refused(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(PersonSearchError, match=r"not \(4, 3\) with \(3,\)"):
        loss(torch.zeros(4, 3), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("embeddings", "labels"),
    [((4,), (4,)), ((2, 2, 3), (2,)), ((0, 3), (0,)), ((4, 3), (5,)), ((4, 3), (4, 1))],
)
def test_every_wrong_shape_is_refused(embeddings: tuple[int, ...], labels: tuple[int, ...]) -> None:
    with pytest.raises(PersonSearchError, match=r"must be \(B, D\) with B > 0"):
        check_batch(torch.zeros(embeddings), torch.zeros(labels, dtype=torch.int64))
    check_batch(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize(("margin", "active"), [(0.0, 1 / 4), (0.5, 2 / 4), (2.0, 3 / 4), ("soft", 1 / 4)])
def test_a_triplet_is_active_while_its_loss_is_above_zero(margin: Margin, active: float) -> None:
    positive, negative = torch.tensor([3.0, 1.0, 1.0, 1.0]), torch.tensor([2.0, 1.0, 1.75, 4.0])
    if margin == 0.5:
        negative[1] = 1.25
    elif margin == 2.0:
        negative[3] = 3.0
    triplets = Triplets(positive, negative)
    assert active_fraction(triplets, margin) == active
    assert active_fraction(Triplets(positive[:0], negative[:0]), margin) == 0


@pytest.mark.parametrize("loss", [semi_hard_triplet_loss, batch_hard_triplet_loss])
@pytest.mark.parametrize("margin", ["soft", 0.3])
@pytest.mark.parametrize(
    "people", ["0011", "001122334444", "0123", "0000", "00", "011----", "----", "00000011111", "0"]
)
def test_losses_whose_shapes_do_not_depend_on_the_data_are_the_same(
    loss: Any, margin: Margin, people: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; with anchors that have no positive or no negative, unlabelled rows and duplicates."""
    labels = torch.tensor([int(each) if each != "-" else -1 for each in people])
    embeddings = torch.randn(len(people), 4, generator=torch.Generator().manual_seed(len(people)))
    embeddings[-1] = embeddings[0]

    def value(e: Tensor) -> Tensor:
        return loss(e, labels, margin, unlabelled=labels < 0)  # type: ignore[no-any-return]

    expected = with_gradient(value, embeddings)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = with_gradient(value, embeddings)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found[1].isfinite().all()
