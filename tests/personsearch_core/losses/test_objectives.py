"""Each objective of the literature against a literal version: losses, gradients and memories."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from personsearch_core.losses.build import build_objective
from personsearch_core.losses.center import CenterLoss
from personsearch_core.losses.memory import CircularQueue, LookupTable
from personsearch_core.losses.objective import Batch, Term, rows_of
from personsearch_core.losses.oim import InstanceEnhancing, OnlineInstanceMatching
from personsearch_core.losses.pairing import OnLinePairing
from personsearch_core.losses.softmax import HardExamplePrioritySoftmax, IdentitySoftmax
from personsearch_core.recipes import Objective

IDENTITIES, DIM = 7, 5


def batch(seed: int = 0, labels: tuple[int, ...] = (0, 0, 3, 3, 5, -1, -1, 0)) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(len(labels), DIM, generator=generator, dtype=torch.float64)
    return Batch(embeddings.requires_grad_(), torch.tensor(labels))


def unit(vector: Tensor) -> Tensor:
    found: Tensor = vector / vector.norm()
    return found


def assert_same_loss(ours: Tensor, literal: Tensor, embeddings: Tensor) -> None:
    torch.testing.assert_close(ours, literal, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(ours, embeddings, retain_graph=True)
    (expected,) = torch.autograd.grad(literal, embeddings)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6)


def literal_oim(
    rows: list[Tensor], labels: list[int], table: Tensor, queue: Tensor, t: float, t_queue: float
) -> Tensor:
    losses = []
    for x, label in zip(rows, labels, strict=True):
        attraction = torch.stack([torch.exp(v @ unit(x) / t) for v in table])
        others = sum((torch.exp(u @ unit(x) / t_queue) for u in queue), torch.zeros((), dtype=torch.float64))
        losses.append(-torch.log(attraction[label] / (attraction.sum() + others)))
    return torch.stack(losses).mean()


def test_identity_softmax() -> None:
    torch.manual_seed(0)
    objective = IdentitySoftmax(IDENTITIES, DIM).double()
    given = batch()
    weight, bias = objective.classifier.weight, objective.classifier.bias
    losses = []
    for x, label in zip(given.embeddings, given.labels.tolist(), strict=True):
        if label >= 0:
            scores = torch.exp(weight @ x + bias)
            losses.append(-torch.log(scores[label] / scores.sum()))
    assert_same_loss(objective(given).loss, torch.stack(losses).mean(), given.embeddings)


def test_hep_softmax_sums_over_the_batch_and_the_hardest_others() -> None:
    torch.manual_seed(0)
    objective = HardExamplePrioritySoftmax(IDENTITIES, DIM, hard_identities=2).double()
    given = batch()
    weight, bias = objective.classifier.weight, objective.classifier.bias
    labelled = [
        (x, label) for x, label in zip(given.embeddings, given.labels.tolist(), strict=True) if label >= 0
    ]
    own = {0, 3, 5}
    hardness = {
        i: max(float((weight[i] @ x + bias[i]).detach()) for x, _ in labelled)
        for i in set(range(IDENTITIES)) - own
    }
    chosen = sorted(own | set(sorted(hardness, key=lambda i: -hardness[i])[:2]))
    losses = [
        -torch.log(
            torch.exp(weight[label] @ x + bias[label])
            / torch.stack([torch.exp(weight[i] @ x + bias[i]) for i in chosen]).sum()
        )
        for x, label in labelled
    ]
    assert_same_loss(objective(given).loss, torch.stack(losses).mean(), given.embeddings)


@pytest.mark.parametrize("unlabelled_temperature", [None, 0.2])
def test_oim_and_ioim_over_several_batches(unlabelled_temperature: float | None) -> None:
    """Loss, lookup table and circular queue follow the literal version through three batches."""
    objective = OnlineInstanceMatching(
        IDENTITIES, DIM, temperature=0.1, unlabelled_temperature=unlabelled_temperature, queue=3
    ).double()
    table = torch.zeros(IDENTITIES, DIM, dtype=torch.float64)
    queue: list[Tensor] = []
    for seed in range(3):
        given = batch(seed)
        rows = [x for x, label in zip(given.embeddings, given.labels, strict=True) if label >= 0]
        labels = [label for label in given.labels.tolist() if label >= 0]
        waiting = torch.stack(queue) if queue else torch.zeros(0, DIM, dtype=torch.float64)
        literal = literal_oim(rows, labels, table, waiting, 0.1, unlabelled_temperature or 0.1)
        assert_same_loss(objective(given).loss, literal, given.embeddings)
        objective.update(given.detached())
        for x, label in zip(given.embeddings.detach(), given.labels.tolist(), strict=True):
            if label >= 0:
                table[label] = unit(0.5 * table[label] + 0.5 * unit(x))
            else:
                queue = [*queue, unit(x)][-3:]
        torch.testing.assert_close(objective.table.rows, table)
        stored = objective.queue.entries[: objective.queue.filled]
        assert sorted(stored[:, 0].tolist()) == pytest.approx(sorted(float(u[0]) for u in queue))


def test_iel_trains_look_alikes_as_the_identity() -> None:
    objective = InstanceEnhancing(IDENTITIES, DIM, threshold=0.8, queue=4).double()
    objective.update(batch(0).detached())
    table, queue = objective.table.rows.clone(), objective.queue.entries[: objective.queue.filled].clone()
    look_alike = 3.0 * table[3] + 0.05
    stranger = -table.sum(dim=0)
    embeddings = torch.stack([batch(1).embeddings.detach()[0], look_alike, stranger]).requires_grad_()
    given = Batch(embeddings, torch.tensor([0, -1, -1]))
    similarities = [max(float(v @ unit(x.detach())) for v in table) for x in embeddings[1:]]
    assert similarities[0] >= 0.8 > similarities[1]
    term = objective(given)
    literal = literal_oim([embeddings[0], embeddings[1]], [0, 3], table, queue, 0.1, 0.1)
    assert_same_loss(term.loss, literal, embeddings)
    assert term.watched["enhanced_instances"] == 1
    before = objective.queue.filled
    objective.update(given.detached())
    assert objective.queue.filled == before + 1
    torch.testing.assert_close(objective.table.rows[3], table[3])


def test_center_loss_and_its_centres() -> None:
    objective = CenterLoss(IDENTITIES, DIM, rate=0.5).double()
    centres = torch.zeros(IDENTITIES, DIM, dtype=torch.float64)
    for seed in range(3):
        given = batch(seed)
        pairs = [(x, y) for x, y in zip(given.embeddings, given.labels.tolist(), strict=True) if y >= 0]
        literal = torch.stack([0.5 * (x - centres[y]).square().sum() for x, y in pairs]).mean()
        assert_same_loss(objective(given).loss, literal, given.embeddings)
        objective.update(given.detached())
        for identity in {y for _, y in pairs}:
            members = [x.detach() for x, y in pairs if y == identity]
            away = torch.stack([centres[identity] - x for x in members]).sum(dim=0)
            centres[identity] = centres[identity] - 0.5 * away / (1 + len(members))
        torch.testing.assert_close(objective.centres, centres)


def test_on_line_pairing() -> None:
    objective = OnLinePairing(DIM, temperature=0.1, queue=10).double()
    objective.update(batch(0).detached())
    stored = list(zip(batch(0).embeddings.detach(), batch(0).labels.tolist(), strict=True))
    given = batch(1)
    rows = list(zip(given.embeddings, given.labels.tolist(), strict=True))
    losses = []
    for a, (x, label) in enumerate(rows):
        for p, (y, other) in enumerate(rows):
            if a == p or label < 0 or label != other:
                continue
            positive = torch.exp(unit(x) @ unit(y) / 0.1)
            negatives = [torch.exp(unit(x) @ unit(n) / 0.1) for n, identity in stored if identity != label]
            losses.append(-torch.log(positive / (positive + torch.stack(negatives).sum())))
    torch.testing.assert_close(objective(given).loss, torch.stack(losses).mean(), rtol=1e-6, atol=1e-6)


def test_queue_keeps_the_last_ones() -> None:
    queue = CircularQueue(4, 1)
    for start, count in [(0, 3), (3, 2), (5, 9), (14, 0)]:
        queue.push(torch.arange(start, start + count, dtype=torch.float32)[:, None])
    assert sorted(queue.entries[:, 0].tolist()) == [10, 11, 12, 13]
    assert queue.filled == 4


def test_table_moves_in_batch_order() -> None:
    table = LookupTable(2, 2)
    rows = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    labels = torch.tensor([1, 1, 1])
    table.update(rows, labels, 0.5)
    expected = unit(0.5 * unit(0.5 * unit(0.5 * rows[0]) + 0.5 * rows[1]) + 0.5 * rows[2])
    torch.testing.assert_close(table.rows[1], expected)
    assert (table.rows[0] == 0).all()


def test_memories_take_no_gradient_and_are_saved() -> None:
    objective = OnlineInstanceMatching(IDENTITIES, DIM)
    assert list(objective.parameters()) == []
    assert {"table.rows", "queue.entries", "queue.pushed"} <= set(objective.state_dict())


def built(kind: str, **fields: object) -> Any:
    (term,) = build_objective((Objective.model_validate({"kind": kind, **fields}),), IDENTITIES, DIM).terms
    return term


def test_every_field_reaches_its_objective() -> None:
    memory = {"temperature": 0.3, "momentum": 0.25, "queue": 6}
    for kind in ("oim", "iel", "ioim"):
        plain, term = built(kind), built(kind, **memory)
        assert (plain.temperature, plain.momentum, len(plain.queue.entries)) == (0.1, 0.5, 5000)
        assert (term.temperature, term.momentum, len(term.queue.entries)) == (0.3, 0.25, 6)
    assert built("oim", temperature=0.3).unlabelled_temperature == 0.3
    assert built("ioim").unlabelled_temperature == 0.2
    assert built("ioim", unlabelled_temperature=0.4).unlabelled_temperature == 0.4
    assert (built("iel").threshold, built("iel", threshold=0.6).threshold) == (0.7, 0.6)
    assert (built("center").rate, built("center", momentum=0.75).rate) == (0.5, 0.25)
    pairing = built("olp", temperature=0.3, queue=6)
    assert (pairing.temperature, len(pairing.dictionary.entries)) == (0.3, 6)
    assert built("hep_softmax", hard_identities=3).hard_identities == 3
    for kind, margin in (("semi_hard_triplet", 1.0), ("batch_hard_triplet", "soft")):
        plain, term = built(kind), built(kind, margin=0.4, squared=True)
        assert (plain.margin, plain.squared, term.margin, term.squared) == (margin, False, 0.4, True)


def test_sum_is_weighted() -> None:
    torch.manual_seed(0)
    parts = (Objective(kind="oim", weight=0.5), Objective(kind="center", weight=0.01), Objective(kind="olp"))
    given = batch()
    term = build_objective(parts, IDENTITIES, DIM)(given)
    by_hand = sum(float(term.watched[f"loss/{part.kind}"]) * part.weight for part in parts)
    assert term.loss.item() == pytest.approx(by_hand)


def test_terms_of_one_kind_are_watched_under_numbers() -> None:
    margins = (0.2, 0.6)
    parts = tuple(Objective(kind="batch_hard_triplet", margin=margin) for margin in margins)
    together = build_objective(parts, IDENTITIES, DIM)(batch()).watched
    alone = [build_objective((part,), IDENTITIES, DIM)(batch()).watched for part in parts]
    assert together == {
        "loss/batch_hard_triplet": alone[0]["loss/batch_hard_triplet"],
        "active_triplets": alone[0]["active_triplets"],
        "loss/batch_hard_triplet_2": alone[1]["loss/batch_hard_triplet"],
        "active_triplets_2": alone[1]["active_triplets"],
    }


@pytest.mark.parametrize(
    "kind",
    [
        "semi_hard_triplet",
        "batch_hard_triplet",
        "identity_softmax",
        "oim",
        "iel",
        "ioim",
        "center",
        "hep_softmax",
        "olp",
    ],
)
@pytest.mark.parametrize("labels", [(0, 0, 1, 1), (0, 0, -1, -1), (-1, -1, -1)])
def test_every_kind_is_built_and_finite(kind: str, labels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    objective = build_objective((Objective.model_validate({"kind": kind}),), IDENTITIES, DIM)
    for seed in range(2):
        given = batch(seed, labels)
        loss = objective(given).loss
        (gradient,) = torch.autograd.grad(loss, given.embeddings, allow_unused=True)
        assert math.isfinite(loss.item())
        assert gradient is None or torch.isfinite(gradient).all()
        objective.update(given.detached())


def test_rows_that_were_told_count_for_their_own_labels_alone() -> None:
    """Objectives of other packages make batches of a batch: of other labels, flipped, a part."""
    labels = torch.tensor([0, -1, 1, -1])
    told = Batch(torch.randn(4, 2), labels, rows_of(labels, labels))
    assert told.rows is told.known_rows
    for other in (torch.tensor([-1, 0, 0, 1]), labels.flip(0), labels[:2]):
        changed = replace(told, embeddings=told.embeddings[: len(other)], labels=other)
        plain = Batch(changed.embeddings, other)
        assert torch.equal(changed.labelled, other[other >= 0])
        assert torch.equal(changed.labelled_embeddings, plain.labelled_embeddings)
        assert torch.equal(changed.unlabelled_embeddings, plain.unlabelled_embeddings)


def test_each_class_promises_fixed_shapes_for_itself() -> None:
    """A subclass of before the promise may index by a mask."""

    class Own(OnlineInstanceMatching):
        def forward(self, batch: Batch) -> Term:
            return super().forward(batch)

    assert OnlineInstanceMatching(2, 2).has_fixed_shapes(8)
    assert not Own(2, 2).has_fixed_shapes(8)
