"""A part that is read in columns gives the rows that reading it one by one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.adapters.coco_annotations import AnnotationReader, Annotations
from data_catalog.adapters.coco_columns import Ids, has_key, value_at
from data_catalog.jsonstream import ArrayPart, top_level_arrays

WRITERS: list[Callable[[int], Any]] = [
    int,
    float,
    str,
    lambda n: f"{n}.0",
    lambda n: f"{n:.3e}",
    lambda n: f"{n:04d}",
    lambda n: f"i{n}",
]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 9), st.floats(), st.text("1.ex -", max_size=4))


def part_of(folder: Path, entries: list[Any]) -> ArrayPart:
    path = folder / "x.json"
    path.write_text(json.dumps({"annotations": entries}))
    ((_, part),) = top_level_arrays(path, frozenset({"annotations"}))
    return part


def read(
    part: ArrayPart, monkeypatch: pytest.MonkeyPatch, *, quick: bool
) -> tuple[Annotations, list[Any], Ids]:
    images = Ids()
    with monkeypatch.context() as patch:
        if not quick:
            patch.setattr(AnnotationReader, "_by_arrow", lambda *_: None)
        return (*AnnotationReader(images, Ids(), "a.who").read(part), images)


def same(one: Annotations, other: Annotations, ids: Ids, other_ids: Ids) -> None:
    assert [str(name) for name in one.names.to_pylist()] == other.names.to_pylist()
    assert ids.written(one.images) == other_ids.written(other.images)
    for name in ("rows", "categories", "crowd", "ignore", "anonymous", "misnamed"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
    assert np.array_equal(one.boxes, other.boxes, equal_nan=True)
    assert one.identity is not None and other.identity is not None
    assert one.identity.to_pylist() == other.identity.to_pylist()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_columns_give_what_reading_one_by_one_gives(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    write = {key: data.draw(st.sampled_from(WRITERS)) for key in ("id", "image_id", "category_id", "who")}
    corners = st.lists(
        data.draw(st.sampled_from([st.integers(0, 99), st.floats(), st.just("1.5")])), min_size=4, max_size=4
    )
    entries = [
        {
            "id": write["id"](n),
            "image_id": write["image_id"](n % 3),
            "category_id": int(n % 2),
            "bbox": data.draw(corners),
            "iscrowd": n % 2,
            "ignore": data.draw(st.sampled_from([0, 1, None])),
            "a": {"who": write["who"](data.draw(st.integers(-2, 5)))},
        }
        for n in range(data.draw(st.integers(1, 6)))
    ]
    if data.draw(st.booleans()):
        key = data.draw(st.sampled_from(["id", "image_id", "category_id", "iscrowd", "ignore", "who"]))
        target = entries[-1]["a"] if key == "who" else entries[-1]
        target[key] = data.draw(SCALARS)
    part = part_of(tmp_path_factory.mktemp("part"), entries)
    monkeypatch = pytest.MonkeyPatch()
    quick, faults, ids = read(part, monkeypatch, quick=True)
    slow, slow_faults, slow_ids = read(part, monkeypatch, quick=False)
    assert faults == slow_faults
    same(quick, slow, ids, slow_ids)


@pytest.mark.parametrize("writer", WRITERS[:5])
def test_ordinary_ways_of_writing_take_the_quick_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Callable[[int], Any]
) -> None:
    monkeypatch.setattr(AnnotationReader, "_one_by_one", lambda *_: pytest.fail("read one by one"))
    entries = [
        {
            "id": writer(n),
            "image_id": writer(n),
            "category_id": writer(1),
            "bbox": [writer(n)] * 4,
            "a": {"who": n},
        }
        for n in range(3)
    ]
    found, _ = AnnotationReader(Ids(), Ids(), "a.who").read(part_of(tmp_path, entries))
    assert found.images.tolist() == [0, 1, 2] and found.boxes[2].tolist() == [2.0] * 4


@pytest.mark.parametrize(
    ("entry", "key", "value"),
    [
        ({"a": 1}, "a", 1),
        ({"a": {"b": {"c": 2}}}, "a.b.c", 2),
        ({"a.b": 3, "a": {"b": 4}}, "a.b", 3),
        ({"a": {"b.c": 5}}, "a.b.c", 5),
        ({"a": {"b": None}}, "a.b", None),
    ],
)
def test_paths_of_keys(entry: dict[str, Any], key: str, value: Any) -> None:
    assert has_key(entry, key) and value_at(entry, key) == value


@pytest.mark.parametrize("entry", [{}, {"a": 1}, {"a": [1]}, {"a": None}, [], None, {"a": {"c": 1}}])
def test_paths_that_lead_nowhere(entry: Any) -> None:
    assert not has_key(entry, "a.b") and value_at(entry, "a.b") is None


@pytest.mark.parametrize("value", [None, True, [1], {}, "", "  ", 1.5, float("nan"), 1 << 63])
def test_what_is_not_an_id(value: Any) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Ids().number(value)


def test_texts_that_only_look_like_numbers_stay_apart() -> None:
    ids = Ids()
    numbers = [ids.number(value) for value in ("00e1", "0e1", "1e3", "1000", "0x1", "9" * 30)]
    assert len(set(numbers)) == 6 and numbers[3] == 1000
    assert ids.written(np.array(numbers))[:4] == ["'00e1'", "'0e1'", "'1e3'", "1000"]
