from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personsearch_core.data.sampling import TrainingSet, TrainingStream, hold_out_scenes, images_per_epoch
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError


def scenes(count: int, source: str = "a") -> list[Scene]:
    return [
        Scene(f"{source}{i}", "", 10, 10, np.empty((0, 4), np.float32), np.empty(0, bool), (), (), source)
        for i in range(count)
    ]


@pytest.mark.parametrize("amounts", [{}, {"repeat": 1, "choose": 3}, {"proportion": 0.5, "repeat": 2}])
def test_exactly_one_amount(amounts: dict[str, float]) -> None:
    with pytest.raises(PersonSearchError, match="exactly one of proportion, repeat and choose"):
        TrainingSet(scenes(3), **amounts)  # type: ignore[arg-type]


def test_an_empty_entry_is_refused() -> None:
    with pytest.raises(PersonSearchError, match="no images"):
        TrainingSet([], repeat=1)


def test_an_amount_of_nothing_is_refused() -> None:
    with pytest.raises(PersonSearchError, match="choose must be positive"):
        TrainingSet(scenes(2), choose=0)


def test_repeat_and_choose_count_images() -> None:
    entries = [TrainingSet(scenes(10), repeat=1.5), TrainingSet(scenes(4, "b"), choose=7)]
    assert images_per_epoch(entries) == (15, 7)


def test_proportions_alone_share_as_many_images_as_there_are() -> None:
    entries = [TrainingSet(scenes(30), proportion=3), TrainingSet(scenes(10, "b"), proportion=1)]
    assert images_per_epoch(entries) == (30, 10)


def test_a_proportion_beside_a_count_is_a_part_of_the_whole() -> None:
    entries = [TrainingSet(scenes(5), proportion=0.25), TrainingSet(scenes(30, "b"), repeat=1)]
    assert images_per_epoch(entries) == (10, 30)


def test_proportions_must_leave_room() -> None:
    entries = [TrainingSet(scenes(5), proportion=1.0), TrainingSet(scenes(30, "b"), repeat=1)]
    with pytest.raises(PersonSearchError, match="less than 1"):
        images_per_epoch(entries)


@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_draws_evenly_and_depends_on_the_seed_alone(
    n: int, chosen: int, seed: int, epoch: int
) -> None:
    entries = [TrainingSet(scenes(n), choose=chosen), TrainingSet(scenes(3, "b"), repeat=2)]
    stream, again = TrainingStream(entries, seed), TrainingStream(entries, seed)
    numbers = range(epoch * stream.epoch_size, (epoch + 1) * stream.epoch_size)
    drawn = [stream[number][1].image_id for number in numbers]
    assert drawn == [again[number][1].image_id for number in reversed(numbers)][::-1]
    counts = Counter(drawn)
    first = [counts[f"a{i}"] for i in range(n)]
    assert sum(first) == chosen and max(first) - min(first) <= 1
    assert all(counts[f"b{i}"] == 2 for i in range(3))


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    stream, other = (TrainingStream([TrainingSet(scenes(40), repeat=1)], seed) for seed in (0, 1))

    def order(stream: TrainingStream, epoch: int) -> list[str]:
        numbers = range(epoch * stream.epoch_size, (epoch + 1) * stream.epoch_size)
        return [stream[number][1].image_id for number in numbers]

    orders = [order(stream, 0), order(stream, 1), order(other, 0)]
    assert len({tuple(each) for each in orders}) == 3
    assert len({tuple(sorted(each)) for each in orders}) == 1


def test_entries_of_one_source_are_told_apart() -> None:
    entries = [TrainingSet(scenes(2), repeat=1), TrainingSet(scenes(2), repeat=1)]
    assert TrainingStream(entries, 0).names == ("a#0", "a#1")


def test_scenes_are_held_out_by_their_ids() -> None:
    a, b = scenes(40), scenes(20, "b")
    entries = [TrainingSet(a, repeat=1), TrainingSet(b, choose=3), TrainingSet(a[:20], repeat=2)]
    kept, held = hold_out_scenes(entries, 0.3, seed=5)
    out = {scene.image_id for scene in held}
    assert len(out) == len(held) and 8 <= len(held) <= 28
    assert {scene.source for scene in held} == {"a held out", "b held out"}
    for before, after in zip(entries, kept, strict=True):
        assert [s.image_id for s in after.scenes] == [
            s.image_id for s in before.scenes if s.image_id not in out
        ]
        assert (after.repeat, after.choose) == (before.repeat, before.choose)
    fewer = hold_out_scenes([TrainingSet(a[:10], repeat=1)], 0.3, seed=5)[1]
    assert {scene.image_id for scene in fewer} == out & {scene.image_id for scene in a[:10]}
    assert {scene.image_id for scene in hold_out_scenes(entries, 0.3, seed=6)[1]} != out
    assert hold_out_scenes(entries, 0.0, seed=5) == (entries, [])
    with pytest.raises(PersonSearchError, match="leaves training entry 'a' none"):
        hold_out_scenes([TrainingSet(a[:2], repeat=1)], 0.999, seed=5)
    with pytest.raises(PersonSearchError, match="is less than one: raise it"):
        hold_out_scenes([TrainingSet(a[:2], repeat=1)], 1e-9, seed=5)


def test_images_of_one_id_in_two_sources_are_two_that_are_held_out() -> None:
    renamed = [replace(scene, source="b") for scene in scenes(40)]
    _, held = hold_out_scenes(
        [TrainingSet(scenes(40), repeat=1), TrainingSet(renamed, repeat=1)], 0.3, seed=5
    )
    assert {scene.source for scene in held} == {"a held out", "b held out"}
    assert len({scene.image_id for scene in held}) * 2 == len(held)


def test_an_order_stays_what_it_was() -> None:
    """Of trainings that users have begun: a resume goes on with the order that it began with."""
    stream = TrainingStream([TrainingSet(scenes(8), repeat=1)], seed=3)
    assert [stream[number][1].image_id for number in range(8, 16)] == [
        "a4",
        "a3",
        "a1",
        "a6",
        "a0",
        "a2",
        "a5",
        "a7",
    ]
    assert stream.generator(5).integers(0, 1000, 3).tolist() == [270, 206, 199]
    held = hold_out_scenes([TrainingSet(scenes(20), repeat=1)], 0.3, seed=5)[1]
    assert [scene.image_id for scene in held] == ["a1", "a5", "a11"]
