"""Splits that a rule makes: which images go where, and what moves when more come."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_catalog.adapters import Layout, Unit, load_adapter
from data_catalog.drawn_splits import SPOOL, split_again
from data_catalog.errors import CatalogError
from data_catalog.ingest import ingest_root
from data_catalog.rows import Rows, Tables
from data_catalog.rules import LEFT_OUT, Rules, SplitRule
from data_catalog.snapshot import Snapshot
from data_catalog.validation import check_snapshot


def tables_of(
    images: list[str],
    people: list[tuple[str | None, str]] = (),  # type: ignore[assignment]
    *,
    sequences: list[str | None] | None = None,
    frames: list[int | None] | None = None,
    splits: list[str] | None = None,
) -> Tables:
    """Images, and a box for each (person, image)."""
    of = dict(zip(images, splits or ["train"] * len(images), strict=True))
    rows = Rows("boxes.csv")
    rows.images(images, images, list(of.values()), sequence_id=sequences, frame_index=frames)
    rows.boxes(
        [image for _, image in people],
        np.tile([0.0, 0, 10, 20], (len(people), 1)),
        [of[image] for _, image in people],
        list(range(1, len(people) + 1)),
        person_id=[person for person, _ in people],
        person_id_raw=[person for person, _ in people],
    )
    return rows.tables()


def split(parts: list[Tables], rule: SplitRule, work: Path) -> tuple[dict[str, str], pa.Table]:
    """The split of each image, and all boxes."""
    made = list(split_again(parts, rule, work))
    assert not (work / SPOOL).exists()
    images = pa.concat_tables([each.images for each in made])
    boxes = pa.concat_tables([each.boxes for each in made])
    found = dict(zip(images["image_id"].to_pylist(), images["split"].to_pylist(), strict=True))
    assert [found[name] for name in boxes["image_id"].to_pylist()] == boxes["split"].to_pylist()
    return found, boxes


def sequences_of(names: list[str], length: int = 3) -> Tables:
    images = [f"{name}/{n}" for name in names for n in range(length)]
    return tables_of(
        images,
        [("p", image) for image in images],
        sequences=[name for name in names for _ in range(length)],
        frames=[n for _ in names for n in range(length)],
    )


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.text("abcxyz0123456789/é", min_size=1, max_size=6), min_size=2, max_size=40),
    st.integers(0, 9),
    st.sampled_from([(0.6, 0.4), (0.9, 0.1), (0.5, 0.5)]),
)
def test_whole_sequences(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], seed: int, shares
) -> None:
    work = tmp_path_factory.mktemp("work")
    rule = SplitRule(by="sequence", parts=dict(zip(("train", "test"), shares, strict=True)), seed=seed)
    found, _ = split([sequences_of(sorted(names))], rule, work)
    of_sequence = {name: {found[f"{name}/{n}"] for n in range(3)} for name in names}
    assert all(len(parts) == 1 for parts in of_sequence.values())
    train = sum(parts == {"train"} for parts in of_sequence.values())
    assert 1 <= train < len(names) and abs(train - shares[0] * len(names)) <= 1
    assert split([sequences_of(sorted(names, reverse=True))], rule, work)[0] == found
    more, _ = split([sequences_of([*sorted(names), "another"])], rule, work)
    moved = {name.rpartition("/")[0] for name in found if more[name] != found[name]}
    assert len(moved) <= 1
    longer, _ = split([sequences_of(sorted(names), length=5)], rule, work)
    assert {name: longer[name] for name in found} == found


def test_another_seed_splits_otherwise(tmp_path: Path) -> None:
    tables = sequences_of([f"s{n}" for n in range(30)])
    first, second = (split([tables], SplitRule(by="sequence", seed=seed), tmp_path)[0] for seed in (0, 1))
    assert first != second


def test_time(tmp_path: Path) -> None:
    """The parts follow each other in every sequence, with a gap counted in frame numbers before each."""
    images = [f"{name}/{n}" for name in "ab" for n in range(100)]
    tables = tables_of(
        images,
        sequences=[name for name in "ab" for _ in range(100)],
        frames=[3 * n if name == "a" else n for name in "ab" for n in range(100)],
    )
    parts = {"train": 0.5, "val": 0.25, "test": 0.25}
    found, _ = split([tables], SplitRule(by="time", parts=parts, gap=12), tmp_path)

    def runs(name: str) -> list[tuple[str, int]]:
        order: list[tuple[str, int]] = []
        for n in range(100):
            part = found[f"{name}/{n}"]
            if order and order[-1][0] == part:
                order[-1] = (part, order[-1][1] + 1)
            else:
                order.append((part, 1))
        return order

    assert runs("a") == [("train", 50), (LEFT_OUT, 4), ("val", 21), (LEFT_OUT, 4), ("test", 21)]
    assert runs("b") == [("train", 50), (LEFT_OUT, 12), ("val", 13), (LEFT_OUT, 12), ("test", 13)]
    without, _ = split([tables], SplitRule(by="time", parts=parts, gap=0), tmp_path)
    assert Counter(without.values()) == {"train": 100, "val": 50, "test": 50}


def test_a_gap_that_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"'test' would have none of 30 images.*gap of 50.*: lower `gap`"):
        split([sequences_of(["a"], length=30)], SplitRule(by="time"), tmp_path)


sightings = st.lists(
    st.tuples(st.sampled_from([None, *"pqrstu"]), st.sampled_from([f"i{n}" for n in range(10)])), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(sightings, st.integers(0, 3))
def test_identities_are_disjoint(tmp_path_factory: pytest.TempPathFactory, seen, seed: int) -> None:
    work, images = tmp_path_factory.mktemp("work"), [f"i{n}" for n in range(10)]
    people = {person for person, _ in seen if person}
    rule = SplitRule(by="identity", seed=seed)
    if len(people) < 2:
        with pytest.raises(CatalogError, match="cannot be shared out"):
            split([tables_of(images, seen)], rule, work)
        return
    try:
        found, boxes = split([tables_of(images, seen)], rule, work)
    except CatalogError as error:
        assert "would have none" in str(error)
        return
    rows = boxes.select(["person_id", "person_id_raw", "person_scope", "split", "image_id"]).to_pylist()
    assert len(rows) == len(seen)  # people of another part are unknown there, not gone
    parts: dict[str, set[str]] = {}
    for row, (person, image) in zip(rows, seen, strict=True):
        assert (row["person_id_raw"], row["image_id"]) == (person, image)
        assert row["person_id"] in (None, person)
        assert (row["person_scope"] is None) == (row["person_id"] is None)
        if row["person_id"]:
            parts.setdefault(person, set()).add(row["split"])
    assert all(len(each) == 1 for each in parts.values())
    for image in images:  # most of an image's people keep their identity
        here = {person for person, name in seen if name == image and person}
        kept = {row["person_id"] for row in rows if row["image_id"] == image and row["person_id"]}
        assert len(kept) * 2 >= len(here)
    assert set(found.values()) <= {"train", "test"}


def test_images_of_one_person_stay_when_others_come(tmp_path: Path) -> None:
    seen = [(f"p{n}", f"p{n}-{m}") for n in range(60) for m in range(3)]
    empty = [f"nobody{n}" for n in range(200)]
    found, _ = split(
        [tables_of([*(image for _, image in seen), *empty], seen)], SplitRule(by="identity"), tmp_path
    )
    assert Counter(found[image] for _, image in seen) == {"train": 108, "test": 72}
    assert 90 < Counter(found[image] for image in empty)["train"] < 150
    more = [*seen, ("new", "new-0"), ("p3", "p3-9")]
    again, _ = split(
        [tables_of([*(image for _, image in more), *empty], more)], SplitRule(by="identity"), tmp_path
    )
    assert len({image[:3] for image in found if again[image] != found[image]}) <= 1


def test_parts_of_rows_change_nothing(tmp_path: Path) -> None:
    """Boxes may come in any parts, after their images."""
    names = [f"s{n}" for n in range(8)]
    rule = SplitRule(by="sequence")
    tables = sequences_of(names)
    parts = [
        replace(
            tables,
            images=tables.images.slice(at, 3),
            boxes=tables.boxes.slice(max(at - 2, 0), 3 if at else 1),
        )
        for at in range(0, 25, 3)
    ]
    assert sum(len(part.boxes) for part in parts) == 24
    whole, boxes = split([tables], rule, tmp_path)
    each, others = split(parts, rule, tmp_path)
    assert each == whole
    assert others.unify_dictionaries().to_pydict() == boxes.to_pydict()


def test_what_cannot_be_split_is_told(tmp_path: Path) -> None:
    there = tables_of(["a", "b"], splits=["train", "test"], sequences=["s", "t"], frames=[1, 2])
    for rule, message in (
        (SplitRule(by="sequence"), r"has splits already \(test, train\).*of: \[test, train\]"),
        (SplitRule(by="sequence", of=("val",)), "no images are in split 'val'; there is: test, train"),
        (SplitRule(by="sequence", of=("train",)), "'test' is both a part and a split"),
        (SplitRule(by="sequence", of=("train",), parts={"a": 0.5, "b": 0.5}), "1 sequences cannot be shared"),
    ):
        with pytest.raises(CatalogError, match=message):
            split([there], rule, tmp_path)
    with pytest.raises(CatalogError, match="2 images are in no sequence"):
        split([tables_of(["a", "b"])], SplitRule(by="time"), tmp_path)
    with pytest.raises(CatalogError, match="1 images have no frame number"):
        split([tables_of(["a", "b"], sequences=["s", "s"], frames=[1, None])], SplitRule(by="time"), tmp_path)


@pytest.mark.parametrize(
    "parts", [{"train": 1.0}, {"train": 0.5, "test": 0.4}, {"a": 0.5, LEFT_OUT: 0.5}, {"a": -1, "b": 2}]
)
def test_parts_that_make_no_sense(parts: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SplitRule(by="time", parts=parts)


def test_the_order_of_parts_is_part_of_the_recipe() -> None:
    """Keys are digests of JSON with sorted names; the first part is the earliest in time."""
    recipes = [
        Rules(splits=SplitRule(by="time", parts=parts)).recipe()
        for parts in ({"train": 0.5, "test": 0.5}, {"test": 0.5, "train": 0.5})
    ]
    assert recipes[0]["splits"]["parts"] != recipes[1]["splits"]["parts"]
    assert Rules.model_validate(recipes[1]).splits == SplitRule(by="time", parts={"test": 0.5, "train": 0.5})
    assert Rules().recipe() == {}


def test_some_splits_of_a_real_sample(shared: Path, tmp_path: Path) -> None:
    rules = Rules(splits=SplitRule(by="time", parts={"train": 0.7, "val": 0.3}, gap=9, of=("train",)))
    counts = ingest_root(shared / "data" / "PETS09-S2L1", load_adapter("mot15"), tmp_path, rules=rules)
    names = ("train", "val", LEFT_OUT, "test")
    assert [counts[f"{name}.images"] for name in names] == [51, 19, 3, 74]
    assert counts["images"] == 147 and counts["boxes"] == 778
    assert counts["test.boxes"] == 332
    assert [finding.code for finding in check_snapshot(Snapshot(tmp_path))] == ["splits_by_rule"]


@pytest.mark.parametrize(("by", "level"), [("time", "note"), ("sequence", "warning")])
def test_identities_shared_over_time_are_no_leak(by: str, level: str, tmp_path: Path) -> None:
    class Tracks:
        name, version, options = "tracks", 1, {}

        def discover(self, root, options):
            return Layout((Unit("boxes.csv"),))

        def read(self, root, unit, options):
            rows = Rows(unit.source)
            images = [f"{name}/{n}" for name in "ab" for n in range(10)]
            rows.images(
                images, images, "train", sequence_id=[i[0] for i in images], frame_index=list(range(20))
            )
            rows.boxes(images, np.tile([0.0, 0, 9, 9], (20, 1)), "train", range(1, 21), person_id="same")
            yield rows

    (tmp_path / "boxes.csv").write_text("")
    work = tmp_path / "work"
    work.mkdir()
    rules = Rules(splits=SplitRule(by=by, gap=2))
    ingest_root(tmp_path, Tracks(), work, rules=rules, read_images=False)
    found = {each.code: each.level for each in check_snapshot(Snapshot(work))}
    assert found["identity_in_two_splits"] == level
