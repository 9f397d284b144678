"""Batches, identities and held-out people of several datasets."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import UNLABELLED, ReidLabels, hold_out_identities
from personsearch_core.sampling import PKSampler, largest_shares


def of_dataset(people: int, boxes: int = 3, unlabelled: int = 0) -> ReidLabels:
    """People, images and boxes that all datasets call the same."""
    rows: list[tuple[str | None, str]] = [
        (f"{person}", f"i{person}-{box}") for person in range(people) for box in range(boxes)
    ]
    rows += [(None, f"u{number}") for number in range(unlabelled)]
    return ReidLabels.from_columns([person for person, _ in rows], [image for _, image in rows])


def amount(**given: float) -> Any:
    return SimpleNamespace(**{"proportion": None, "repeat": None, "choose": None} | given)


def joined(*parts: ReidLabels) -> ReidLabels:
    return ReidLabels.joined({f"d{number}": part for number, part in enumerate(parts)})


def test_equal_ids_of_two_datasets_are_two_people_in_other_images() -> None:
    labels = joined(of_dataset(3, unlabelled=2), of_dataset(2, unlabelled=1))
    assert labels.names == ("d0/0", "d0/1", "d0/2", "d1/0", "d1/1")
    first, second = labels.rows_of(0), labels.rows_of(1)
    for numbers in (labels.image, labels.box, labels.label):
        assert not set(numbers[first]) & (set(numbers[second]) - {UNLABELLED})
    assert np.count_nonzero(labels.label == UNLABELLED) == 3


def test_labels_are_contiguous_and_in_the_order_of_the_datasets() -> None:
    single = ReidLabels.from_columns(["0", "1", "1", "2", "2"], list("abcde"))
    sampler = PKSampler(joined(single, of_dataset(3)), np.arange(14), 4, 2)
    assert sampler.left_out == ["d0/0"]
    assert sampler.names == ["d0/1", "d0/2", "d1/0", "d1/1", "d1/2"]
    assert sampler.label_of_row.tolist() == [-1, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


@settings(max_examples=80, deadline=None)
@given(
    people=st.lists(st.integers(2, 14), min_size=1, max_size=3),
    repeats=st.lists(st.sampled_from([0.5, 1.0, 1.7, 3.0]), min_size=3, max_size=3),
    per_batch=st.integers(2, 6),
    unlabelled=st.lists(st.sampled_from([0, 8]), min_size=3, max_size=3),
    seed=st.integers(0, 2**31),
)
def test_every_batch_has_its_share_of_each_dataset(
    people: list[int], repeats: list[float], per_batch: int, unlabelled: list[int], seed: int
) -> None:
    parts = [of_dataset(count, 2, more) for count, more in zip(people, unlabelled, strict=False)]
    labels = joined(*parts)
    amounts = [amount(repeat=repeat) for repeat in repeats[: len(people)]]
    n_unlabelled = 3 if any(unlabelled[: len(people)]) else 0
    try:
        sampler = PKSampler(labels, np.arange(len(labels)), per_batch, 2, n_unlabelled, seed, amounts)
    except PersonSearchError:
        assert sum(people) < per_batch or any(
            share > count
            for share, count in zip(largest_shares(amounts, people, per_batch), people, strict=True)
        )
        return
    epoch = sampler.epoch(2)
    total = sum(sampler.per_epoch)
    assert len(epoch) == sampler.steps_per_epoch == -(-total // per_batch)
    seen: Counter[int] = Counter()
    for batch in epoch:
        rows = batch[: per_batch * 2]
        identities = sampler.label_of_row[rows].reshape(per_batch, 2)[:, 0]
        assert len(set(identities)) == per_batch
        source = labels.source[rows]
        assert (np.diff(source) >= 0).all()
        for number, due in enumerate(sampler.per_epoch):
            share = np.count_nonzero(source == number) / 2
            assert abs(share - per_batch * due / total) < 2
        seen.update(identities.tolist())
        alone = batch[per_batch * 2 :]
        assert (labels.label[alone] == UNLABELLED).all() and len(set(alone.tolist())) == n_unlabelled
    filling = len(epoch) * per_batch - total
    for number, due in enumerate(sampler.per_epoch):
        drawn = [seen[label] for label in range(*_range_of(people, number))]
        assert due <= sum(drawn) <= due + filling
        assert max(drawn) - min(drawn) <= 1


def _range_of(people: list[int], number: int) -> tuple[int, int]:
    return sum(people[:number]), sum(people[: number + 1])


def test_proportions_hold_in_each_batch_and_in_its_unlabelled_part() -> None:
    labels = joined(of_dataset(30, unlabelled=20), of_dataset(10, unlabelled=20), of_dataset(10))
    amounts = [amount(proportion=2), amount(proportion=1), amount(proportion=1)]
    sampler = PKSampler(labels, np.arange(len(labels)), 8, 2, 6, 0, amounts)
    assert sampler.per_epoch == (25, 12, 12)
    for batch in sampler.epoch(0)[:-1]:
        assert np.abs(np.bincount(labels.source[batch[:16]]) // 2 - [4, 2, 2]).max() <= 1
        of_unlabelled = np.bincount(labels.source[batch[16:]], minlength=3)
        assert of_unlabelled.tolist() in ([4, 2, 0], [5, 1, 0], [3, 3, 0])


def test_a_list_of_one_draws_as_a_dataset_alone() -> None:
    alone = of_dataset(7, unlabelled=4)
    one = PKSampler(alone, np.arange(len(alone)), 3, 2, 2, seed=5)
    listed = PKSampler(joined(alone), np.arange(len(alone)), 3, 2, 2, 5, [amount(proportion=0.3)])
    assert (one.epoch(4) == listed.epoch(4)).all()


def test_fewer_may_be_chosen_and_come_up_once() -> None:
    labels = joined(of_dataset(30), of_dataset(30))
    sampler = PKSampler(labels, np.arange(len(labels)), 4, 2, amounts=[amount(choose=6), amount(repeat=1)])
    assert sampler.per_epoch == (6, 30) and sampler.steps_per_epoch == 9
    drawn = sampler.label_of_row[np.unique(sampler.epoch(0))]
    assert len(np.unique(drawn[drawn < 30])) == 6
    assert not (sampler.epoch(0) == sampler.epoch(1)).all()


@pytest.mark.parametrize(
    ("people", "amounts", "unlabelled", "message"),
    [
        ((2, 20), [amount(proportion=1), amount(proportion=1)], 0, r"d0: 4 of the 8 .* only 2 of its"),
        ((8, 8), [amount(repeat=1), amount(repeat=1)], 6, r"d1: 3 of the 6 unlabelled rows .* has 1 to"),
        ((9, 0), [amount(repeat=1), amount(repeat=1)], 0, "d1: no identity has two or more rows"),
    ],
)
def test_a_dataset_too_small_for_its_share_is_named(
    people: tuple[int, int], amounts: list[Any], unlabelled: int, message: str
) -> None:
    labels = joined(of_dataset(people[0], unlabelled=9), of_dataset(people[1], unlabelled=1))
    with pytest.raises(PersonSearchError, match=message):
        PKSampler(labels, np.arange(len(labels)), 8, 2, unlabelled, 0, amounts)


def test_each_dataset_holds_out_whom_it_would_alone() -> None:
    parts = [of_dataset(20, unlabelled=3), of_dataset(10)]
    labels = joined(*parts)
    split = hold_out_identities(labels, 0.3, seed=3)
    alone = [hold_out_identities(part, 0.3, seed=3) for part in parts]
    assert split.held_out.tolist() == [*alone[0].held_out, *(alone[1].held_out + len(parts[0]))]
    assert split.training.tolist() == [*alone[0].training, *(alone[1].training + len(parts[0]))]


def test_a_dataset_of_which_no_one_can_be_held_out_is_named() -> None:
    crowd = ReidLabels.from_columns(["1", "2", "1", "2"], ["a", "a", "b", "b"])
    with pytest.raises(PersonSearchError, match=r"^d1: held_out_identities=0\.3"):
        hold_out_identities(joined(of_dataset(20), crowd), 0.3, seed=0)
