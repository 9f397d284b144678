"""P x K batches and the identities held out, by their properties."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import UNLABELLED, ReidLabels, hold_out_identities
from personsearch_core.sampling import PKSampler


def labels_of(boxes_per_person: list[int], views: int = 1, unlabelled: int = 0) -> ReidLabels:
    rows = [
        (f"p{person:02d}", f"i{person}-{box}", f"b{person}-{box}", "plain" if view == 0 else "mirrored")
        for person, boxes in enumerate(boxes_per_person)
        for box in range(boxes)
        for view in range(views)
    ]
    rows += [(None, f"u{n}", f"ub{n}", "plain") for n in range(unlabelled)]  # type: ignore[misc]
    return ReidLabels.from_columns(*(list(column) for column in zip(*rows, strict=True)))


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(st.integers(1, 6), min_size=4, max_size=12),
    views=st.integers(1, 3),
    shots=st.integers(2, 5),
    unlabelled=st.integers(0, 5),
    seed=st.integers(0, 2**31),
)
def test_every_batch_is_p_times_k(
    boxes: list[int], views: int, shots: int, unlabelled: int, seed: int
) -> None:
    labels = labels_of(boxes, views, unlabelled)
    usable = [count * views >= 2 for count in boxes]
    per_batch = 2
    if sum(usable) < per_batch:
        return
    sampler = PKSampler(labels, np.arange(len(labels)), per_batch, shots, min(2, unlabelled), seed)
    assert len(sampler.left_out) == len(boxes) - sum(usable)
    epoch = sampler.epoch(3)
    assert epoch.shape == (-(-sum(usable) // per_batch), per_batch * shots + min(2, unlabelled))
    seen: set[int] = set()
    for batch in epoch:
        people = labels.label[batch[: per_batch * shots]].reshape(per_batch, shots)
        assert (people == people[:, :1]).all()
        assert len(set(people[:, 0])) == per_batch
        seen |= set(people[:, 0].tolist())
        assert (labels.label[batch[per_batch * shots :]] == UNLABELLED).all()
        for rows in batch[: per_batch * shots].reshape(per_batch, shots):
            person = labels.label[rows[0]]
            n_boxes, n_rows = boxes[person], boxes[person] * views
            assert len(set(labels.box[rows])) == min(shots, n_boxes)
            assert len(set(rows.tolist())) == min(shots, n_rows)
            repeats = Counter(rows.tolist()).values()
            assert max(repeats) - min(repeats) <= 1
    assert seen == {person for person, good in enumerate(usable) if good}


def test_epochs_are_functions_of_the_seed() -> None:
    labels = labels_of([5] * 10)

    def sampler(seed: int) -> PKSampler:
        return PKSampler(labels, np.arange(len(labels)), 4, 3, seed=seed)

    first, again, other = sampler(1), sampler(1), sampler(2)
    late = again.epoch(7)
    assert (first.epoch(7) == late).all()
    assert (first.batch(7 * 3 + 2) == late[2]).all()
    assert not (first.epoch(7) == first.epoch(8)).all()
    assert not (first.epoch(7) == other.epoch(7)).all()


def test_batches_stay_what_they_were() -> None:
    """Of trainings that users have begun: a resume goes on with the batches that it began with."""
    labels = labels_of([3] * 5, unlabelled=3)
    epoch = PKSampler(labels, np.arange(len(labels)), 2, 2, 1, seed=3).epoch(1)
    assert epoch.tolist() == [[3, 4, 12, 13, 17], [0, 2, 8, 7, 17], [11, 10, 3, 4, 17]]
    assert hold_out_identities(labels_of([2] * 10), 0.3, seed=3).held_out.tolist() == [2, 3, 4, 5, 8, 9]


def test_single_rows_are_left_out_by_name(caplog: pytest.LogCaptureFixture) -> None:
    labels = labels_of([3, 1, 3, 1])
    sampler = PKSampler(labels, np.arange(len(labels)), 2, 2)
    assert sampler.left_out == ["p01", "p03"]
    assert "2 identities have a single row, hence no positive pair, and are left out: p01, p03" in caplog.text
    assert sampler.label_of_row.tolist() == [0, 0, 0, -1, 1, 1, 1, -1]


def test_too_few_identities() -> None:
    labels = labels_of([3, 1, 3])
    with pytest.raises(
        PersonSearchError, match=r"identities_per_batch is 4, but only 2 .*\(1 have a single one\)"
    ):
        PKSampler(labels, np.arange(len(labels)), 4, 2)


def test_too_few_unlabelled() -> None:
    labels = labels_of([3, 3], unlabelled=1)
    with pytest.raises(PersonSearchError, match="unlabelled_per_batch is 5, but the store has 1"):
        PKSampler(labels, np.arange(len(labels)), 2, 2, 5)


@settings(max_examples=60, deadline=None)
@given(
    appearances=st.lists(
        st.tuples(st.one_of(st.none(), st.integers(0, 15)), st.integers(0, 30)), min_size=1, max_size=60
    ),
    part=st.floats(0.1, 0.6),
    seed=st.integers(0, 100),
)
def test_held_out_people_and_their_images_are_never_trained_on(
    appearances: list[tuple[int | None, int]], part: float, seed: int
) -> None:
    labels = ReidLabels.from_columns(
        [None if person is None else str(person) for person, _ in appearances],
        [str(image) for _, image in appearances],
    )
    try:
        split = hold_out_identities(labels, part, seed)
    except PersonSearchError:
        return
    assert len(set(labels.label[split.held_out])) <= round(part * len(labels.names))
    assert not set(labels.label[split.training]) & set(labels.label[split.held_out])
    assert not set(labels.image[split.training]) & set(labels.image[split.held_out])
    known = np.flatnonzero(labels.label != UNLABELLED)
    assert set(known) <= set(split.training) | set(split.held_out)


def test_one_big_group_cannot_be_split() -> None:
    labels = ReidLabels.from_columns(["a", "b", "b", "c", "c", "d"], ["1", "1", "2", "2", "3", "3"])
    with pytest.raises(
        PersonSearchError, match=r"asks for 2 of 4 identities.*form 1 groups.*no two people fit"
    ):
        hold_out_identities(labels, 0.5, seed=0)


def test_other_views_are_no_validation_rows() -> None:
    labels = labels_of([4] * 10, views=2)
    split = hold_out_identities(labels, 0.3, seed=0)
    assert len(split.held_out) == 3 * 4
    assert labels.plain[split.held_out].all()


def test_columns_must_agree() -> None:
    with pytest.raises(PersonSearchError, match="image_ids has 1 rows, person_ids has 2"):
        ReidLabels.from_columns(["a", "b"], ["1"])
