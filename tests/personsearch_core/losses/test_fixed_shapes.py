"""Objectives compute the same where no shape may depend on a batch's numbers, as on a GPU and in a graph."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor

from personsearch_core.identities import UNLABELLED
from personsearch_core.losses import Batch, build_objective
from personsearch_core.losses.center import CenterLoss
from personsearch_core.losses.memory import CircularQueue, LookupTable
from personsearch_core.losses.objective import rows_of
from personsearch_core.losses.softmax import HardExamplePrioritySoftmax
from personsearch_core.recipes import Objective
from personsearch_core.recipes.reid import OBJECTIVE_FIELDS
from tests.personsearch_core.losses import literal

IDENTITIES, DIM = 7, 6
PEOPLE = {
    "labelled": ["00112233", "33445566", "00112233", "44550066"],
    "unlabelled too": ["0011----", "2233--66", "00------", "0101-2-2"],
    "all unlabelled": ["----", "--------", "------", "-"],
    "now and then": ["0012", "------", "0123---", "00112233", "-----", "0------0"],
    "one person, one row": ["0", "0", "000000", "0-"],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "semi_hard_triplet": {},
    "batch_hard_triplet": {},
    "identity_softmax": {},
    "hep_softmax": {"hard_identities": 2},
    "oim": {"queue": 7},
    "ioim": {"queue": 7},
    "iel": {"queue": 7, "threshold": 0.3},
    "center": {},
    "olp": {"queue": 9},
}


def labels_of(people: str) -> Tensor:
    return torch.tensor([UNLABELLED if each == "-" else int(each) for each in people])


def steps(kind: str, people: list[str]) -> list[dict[str, Any]]:
    """Loss, gradients, what is watched and the memory of each step."""
    torch.manual_seed(0)
    wanted = Objective.model_validate({"kind": kind, **OPTIONS[kind]})
    objective = build_objective((wanted,), IDENTITIES, DIM)
    generator, found = torch.Generator().manual_seed(1), []
    looks = torch.randn(IDENTITIES + 1, DIM, generator=generator)
    for of_batch in people:
        labels = labels_of(of_batch)
        noise = torch.randn(len(labels), DIM, generator=generator)
        embeddings = (looks[labels] + noise).requires_grad_()
        batch = Batch(embeddings, labels, rows_of(labels, labels))
        objective.zero_grad()
        term = objective(batch)
        term.loss.backward()
        objective.update(batch.detached())
        learnt = {name: each.grad.clone() for name, each in objective.named_parameters()}  # type: ignore[union-attr]
        memory = {name: each.clone() for name, each in objective.named_buffers()}
        found.append(
            {"loss": term.loss.detach(), **term.watched, "rows": embeddings.grad, **learnt, **memory}
        )
    return found


def test_every_kind_but_those_of_other_packages_is_tried() -> None:
    assert OPTIONS.keys() == OBJECTIVE_FIELDS.keys() - {"metric_learning"}
    for kind in OPTIONS:
        objective = build_objective((Objective.model_validate({"kind": kind}),), 2, 2)
        assert objective.has_fixed_shapes(400)
        assert objective.has_fixed_shapes(410) == (kind != "semi_hard_triplet")
    other = Objective.model_validate({"kind": "metric_learning", "loss": "CircleLoss"})
    assert not build_objective((Objective(kind="oim"), other), 2, 2).has_fixed_shapes(8)


@pytest.mark.parametrize("people", PEOPLE)
@pytest.mark.parametrize("kind", OPTIONS)
def test_losses_gradients_and_memories_are_the_same(
    kind: str, people: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = steps(kind, PEOPLE[people])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = steps(kind, PEOPLE[people])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, check_dtype=True)
    assert all(value.isfinite().all() for row in found for value in row.values())


def test_some_unlabelled_people_take_an_identity_and_some_do_not() -> None:
    """Or the comparison above would say little of them."""
    taken = [int(row["enhanced_instances"]) for row in steps("iel", PEOPLE["now and then"])]
    assert 0 < sum(taken) < 15


@pytest.mark.parametrize("seed", range(40))
def test_memories_have_the_bits_of_a_selection_by_masks(seed: int) -> None:
    """One way serves all devices; results on a CPU are those from before."""
    generator = torch.Generator().manual_seed(seed)
    ours = CenterLoss(IDENTITIES, DIM), LookupTable(IDENTITIES, DIM), CircularQueue(5, DIM)
    centres, table = torch.zeros(IDENTITIES, DIM), torch.zeros(IDENTITIES, DIM)
    queue = literal.Queue(5, DIM)
    for _ in range(6):
        size = int(torch.randint(0, 14, (), generator=generator))
        labels = torch.randint(-1, IDENTITIES, (size,), generator=generator)
        embeddings = torch.randn(size, DIM, generator=generator)
        chosen = torch.rand(size, generator=generator) < 0.6
        ours[0].update(Batch(embeddings, labels))
        literal.move_centres(centres, embeddings[labels >= 0], labels[labels >= 0], ours[0].rate)
        unit, own = torch.nn.functional.normalize(embeddings[labels >= 0], dim=1), labels[labels >= 0]
        ours[1].update(unit, own, 0.5, rows_of(own, own).turns)
        literal.move_table(table, unit, own, 0.5)
        ours[2].push(embeddings, labels, chosen)
        queue.push(embeddings[chosen], labels[chosen])
        assert torch.equal(ours[0].centres, centres)
        assert torch.equal(ours[1].rows, table)
        assert torch.equal(ours[2].entries, queue.entries)
        assert torch.equal(ours[2].labels, queue.labels)
        assert int(ours[2].pushed) == queue.pushed
        ours[2].push(embeddings)
        queue.push(embeddings, torch.full((size,), UNLABELLED))
        assert torch.equal(ours[2].entries, queue.entries)


@pytest.mark.parametrize("seed", range(20))
def test_the_hardest_identities_are_those_of_an_assignment_by_index(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(seed % 7, IDENTITIES, generator=generator)
    labels = torch.randint(0, IDENTITIES, (len(logits),), generator=generator)
    objective = HardExamplePrioritySoftmax(IDENTITIES, DIM, hard_identities=2)
    assert torch.equal(objective.priority(logits, labels), literal.priority(logits, labels, 2))


@pytest.mark.parametrize("people", ["00112-2-", "----", "0123", "", "0"])
def test_the_hosts_rows_are_those_that_a_batch_finds(people: str) -> None:
    labels = labels_of(people).long()
    embeddings = torch.randn(len(labels), DIM)
    told, finds = Batch(embeddings, labels, rows_of(labels, labels)), Batch(embeddings, labels)
    for batch in (told, finds, told.detached()):
        assert torch.equal(batch.labelled_embeddings, embeddings[labels >= 0])
        assert torch.equal(batch.labelled, labels[labels >= 0])
        assert torch.equal(batch.unlabelled_embeddings, embeddings[labels < 0])
        by_turn = [batch.labelled[turn].tolist() for turn in batch.rows.turns]
        assert sorted(chain(*by_turn)) == sorted(labels[labels >= 0].tolist())
        assert all(len(set(turn)) == len(turn) for turn in by_turn)
