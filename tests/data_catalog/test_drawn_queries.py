"""Queries that a rule draws: who is asked for, where they are searched, and what moves when images come."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.adapters import load_adapter
from data_catalog.drawn_queries import DrawnProtocol, draw_queries
from data_catalog.errors import CatalogError
from data_catalog.ingest import ingest_root
from data_catalog.rows import Rows
from data_catalog.rules import DRAWN, QueryRule, Rules
from data_catalog.schema import QUERIES
from data_catalog.snapshot import Snapshot
from data_catalog.validation import check_snapshot

Sighting = tuple[str | None, str]
"""A person in an image."""


def draw(
    sightings: list[Sighting],
    rule: QueryRule,
    *,
    cameras: dict[str, int] | None = None,
    sequences: dict[str, str] | None = None,
    splits: dict[str, str] | None = None,
    ignored: frozenset[Sighting] = frozenset(),
) -> DrawnProtocol:
    """Draw among boxes of these sightings; the box of the i-th is at (i, 0, i + 10, 20)."""
    ids = sorted({image for _, image in sightings})
    rows = Rows("boxes.csv")
    rows.images(
        ids,
        [f"{name}.jpg" for name in ids],
        [(splits or {}).get(name, "test") for name in ids],
        camera_id=[(cameras or {}).get(name) for name in ids],
        sequence_id=[(sequences or {}).get(name) for name in ids],
    )
    left = np.arange(len(sightings), dtype=float)
    xyxy = np.stack([left, 0 * left, left + 10, 0 * left + 20], axis=1)
    rows.boxes(
        [image for _, image in sightings],
        xyxy,
        [(splits or {}).get(image, "test") for _, image in sightings],
        list(range(1, len(sightings) + 1)),
        person_id=[person for person, _ in sightings],
        person_scope="sequence" if sequences else "dataset",
        ignore=[each in ignored for each in sightings],
    )
    tables = rows.tables()
    return draw_queries(ds.dataset(tables.boxes), tables.images, QUERIES.empty_table(), rule)


def gallery(drawn: DrawnProtocol) -> dict[str, set[str]]:
    """The listed images of each query."""
    found: dict[str, set[str]] = defaultdict(set)
    for table in drawn.gallery:
        for row in table.to_pylist():
            assert row["image_id"] not in found[row["query_id"]]
            found[row["query_id"]].add(row["image_id"])
    return found


sightings = st.lists(
    st.tuples(st.sampled_from("pqrstuv"), st.sampled_from([f"i{n}" for n in range(12)])), max_size=60
)


@settings(max_examples=60, deadline=None)
@given(sightings, st.integers(1, 3), st.integers(2, 4), st.integers(0, 5))
def test_everybody_seen_often_enough_is_asked_for(
    seen: list[Sighting], per_identity: int, at_least: int, seed: int
) -> None:
    images = defaultdict(set)
    for person, image in seen:
        images[person].add(image)
    wanted = {person: len(found) for person, found in images.items() if len(found) >= at_least}
    rule = QueryRule(per_identity=per_identity, at_least_images=at_least, seed=seed)
    if len(wanted) < 2:
        with pytest.raises(CatalogError, match=r"^queries: "):
            draw(seen, rule)
        return
    queries = draw(seen, rule).queries.to_pylist()
    assert Counter(row["person_id"] for row in queries) == {
        person: min(per_identity, number) for person, number in wanted.items()
    }
    assert len({(row["person_id"], row["image_id"]) for row in queries}) == len(queries)
    for row in queries:
        at = int(row["x1"])
        assert seen[at] == (row["person_id"], row["image_id"])
        assert row["query_id"] == row["box_id"] == f"{row['image_id']}#{at + 1}"
        assert (row["protocol"], row["source_row"]) == (DRAWN, at + 1)
    assert queries == sorted(queries, key=lambda row: (row["person_id"], row["image_id"]))
    assert draw(seen[::-1], rule).queries["image_id"].to_pylist() == [row["image_id"] for row in queries]


def test_another_seed_draws_others_and_more_images_move_few() -> None:
    seen = [(f"p{person}", f"i{person}-{number}") for person in range(100) for number in range(20)]
    rule = QueryRule(per_identity=2)

    def drawn(of: list[Sighting], seed: int = 0) -> set[str]:
        return set(draw(of, rule.model_copy(update={"seed": seed})).queries["image_id"].to_pylist())

    before = drawn(seen)
    assert len(before & drawn(seen, seed=1)) < 60
    added = [(f"p{person}", f"new{person}") for person in range(100)]
    # One image in 21 is new: a tenth of the two queries each is its share.
    assert len(before - drawn(seen + added)) < 30
    assert before <= drawn([*seen, ("stranger", "far")])


@pytest.mark.parametrize("choice", ["auto", True, False])
def test_cameras(choice: Any) -> None:
    seen = [(person, f"{person}{number}") for person in "abcd" for number in range(6)]
    cameras = {f"a{n}": n % 3 for n in range(6)} | {f"b{n}": 1 for n in range(6)} | {"c0": 1, "c1": 2}
    queries = draw(seen, QueryRule(per_identity=2, cross_camera=choice), cameras=cameras).queries
    images = defaultdict(list)
    for row in queries.to_pylist():
        images[row["person_id"]].append(row["image_id"])
    assert set(images) == (set("ac") if choice is True else set("abcd"))
    if choice is not False:
        assert sorted(images["c"]) == ["c0", "c1"]  # where the camera is known, one of each
        assert len({cameras[name] for name in images["a"]}) == 2


def test_without_cameras_they_play_no_part_and_cannot_be_asked_for() -> None:
    seen = [(person, f"{person}{number}") for person in "ab" for number in range(3)]
    assert len(draw(seen, QueryRule()).queries) == 4
    with pytest.raises(CatalogError, match="several cameras"):
        draw(seen, QueryRule(cross_camera=True))


def test_the_gallery_is_the_split_or_the_sequence() -> None:
    seen = [(f"{place}/{person}", f"{place}{n}") for place in "xy" for person in "ab" for n in range(4)]
    assert gallery(draw(seen, QueryRule())) == {}  # by the rule: everything but the query's image
    sequences = {f"{place}{n}": place for place in "xy" for n in range(4)}
    drawn = draw(seen, QueryRule(), sequences=sequences)
    own = {row["query_id"]: row["image_id"] for row in drawn.queries.to_pylist()}
    assert gallery(drawn) == {
        query: {name for name in sequences if sequences[name] == image[0] and name != image}
        for query, image in own.items()
    }


def test_gallery_rows_say_where_the_person_is() -> None:
    seen = [("p", "a"), ("p", "b"), ("p", "c"), ("q", "a"), ("q", "b"), ("q", "d"), ("q", "d")]
    drawn = draw(seen, QueryRule(per_identity=1), sequences=dict.fromkeys("abcd", "s"))
    person = dict(zip(*(drawn.queries[name].to_pylist() for name in ("query_id", "person_id")), strict=True))
    first = {each: at for at, each in reversed(list(enumerate(seen)))}
    rows = pa.concat_tables(drawn.gallery).to_pylist()
    assert {row["is_positive"] for row in rows} == {True, False}
    for row in rows:
        at = first.get((person[row["query_id"]], row["image_id"]))
        assert row["is_positive"] == (at is not None)
        assert row["x1"] == at and row["x2"] == (None if at is None else at + 10)


def test_an_identity_of_a_sequence_needs_one() -> None:
    seen = [(person, f"{person}{number}") for person in "ab" for number in range(3)]
    with pytest.raises(CatalogError, match="sequence_id"):
        draw(seen, QueryRule(), sequences={"a0": "s"})


def test_the_split_that_is_drawn_from() -> None:
    seen = [(person, f"{person}{number}") for person in "abcd" for number in range(4)]
    splits = {image: "train" if person in "ab" else "test" for person, image in seen}
    assert set(draw(seen, QueryRule(), splits=splits).queries["person_id"].to_pylist()) == {"c", "d"}
    asked = draw(seen, QueryRule(split="train"), splits=splits).queries
    assert set(asked["person_id"].to_pylist()) == {"a", "b"}
    assert len(draw(seen, QueryRule(), splits=dict.fromkeys(splits, "all")).queries) == 8
    with pytest.raises(CatalogError, match="no images in split 'val'"):
        draw(seen, QueryRule(split="val"), splits=splits)
    with pytest.raises(CatalogError, match=r"split: NAME\): train, val"):
        draw(
            seen,
            QueryRule(),
            splits={image: "val" if name == "test" else name for image, name in splits.items()},
        )


def test_ignore_regions_are_not_asked_for() -> None:
    seen = [(person, f"{person}{number}") for person in "abc" for number in range(3)]
    asked = draw(seen, QueryRule(), ignored=frozenset({("a", "a0")})).queries
    assert set(asked["person_id"].to_pylist()) == {"b", "c"}


def test_a_real_sample(shared: Path, tmp_path: Path) -> None:
    """PETS: 10 people in the test part, 9 of them in 3 frames or more."""
    rules = Rules(queries=QueryRule())
    counts = ingest_root(shared / "data" / "PETS09-S2L1", load_adapter("mot15"), tmp_path, rules=rules)
    snapshot = Snapshot(tmp_path)
    assert snapshot.protocols() == [DRAWN]
    assert (counts["queries"], counts["test.queries"], counts["gallery"]) == (18, 18, 18 * 73)
    queries = snapshot.table("queries")
    assert queries["box_id"].null_count == 0
    frames = Counter(snapshot.table("boxes", filter=pc.field("split") == "test")["person_id"].to_pylist())
    assert set(queries["person_id"].to_pylist()) == {person for person, n in frames.items() if n >= 3}
    assert [finding.code for finding in check_snapshot(snapshot)] == ["queries_drawn"]


def test_a_dataset_with_queries_keeps_them(prw_root: Path, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"brings its own \(prw\)"):
        ingest_root(prw_root, load_adapter("prw"), tmp_path, rules=Rules(queries=QueryRule()))


def test_without_identities_there_is_nothing_to_draw() -> None:
    with pytest.raises(CatalogError, match="no box of split 'test' has an identity"):
        draw([(None, "a"), (None, "b")], QueryRule())


def test_too_few_identities_are_told_with_what_there_is() -> None:
    seen = [("p", "a"), ("p", "b"), ("p", "c"), ("q", "a"), ("q", "b")]
    with pytest.raises(CatalogError, match=r"1 of 2 identities.*lower at_least_images"):
        draw(seen, QueryRule())
    assert len(draw(seen, QueryRule(at_least_images=2)).queries) == 4
