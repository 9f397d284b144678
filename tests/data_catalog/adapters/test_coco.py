"""COCO JSON: names of boxes, and rejects in bulk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_catalog.adapters import load_adapter
from data_catalog.adapters.coco_annotations import SeenIds
from data_catalog.errors import CatalogError
from data_catalog.ingest import counts_found, read_units
from data_catalog.rows import LARGE
from data_catalog.validation import check_snapshot

IMAGE = {"id": 1, "file_name": "a.jpg"}


def write(
    root: Path,
    annotations: list[dict[str, Any]],
    *,
    file: str = "train.json",
    person: str = "person",
    images: tuple[dict[str, Any], ...] = (IMAGE,),
) -> None:
    value = {
        "images": images,
        "categories": [{"id": 1, "name": person}, {"id": 2, "name": "car"}],
        "annotations": annotations,
    }
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(json.dumps(value))


def annotation(name: object, category: int = 1) -> dict[str, Any]:
    return {"id": name, "image_id": 1, "category_id": category, "bbox": [1, 1, 10, 20]}


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([7, 7, 8], ["7", "7@2", "8"]),
        (["x", "x", 7, "7"], ["x", "x@2", "7", "7@4"]),
        ([9, 3, 9], ["9", "3", "9@3"]),
    ],
)
def test_repeated_ids_give_different_boxes(
    tmp_path: Path, ingest_into: Any, ids: list[object], expected: list[str]
) -> None:
    write(tmp_path, [annotation(name) for name in ids])
    boxes = ingest_into(tmp_path, "coco", images=False).table("boxes", ["box_id"])
    assert boxes["box_id"].to_pylist() == [f"a.jpg#{name}" for name in expected]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-9, 9), max_size=8), max_size=6))
def test_ids_seen_before_are_found_across_parts(parts: list[list[int]]) -> None:
    seen, known = SeenIds(), set[int]()
    for part in parts:
        expected = [value in known or value in part[:index] for index, value in enumerate(part)]
        assert seen.repeated(pa.array(map(str, part), pa.string())).tolist() == expected
        known.update(part)


def test_rejects_are_written_as_they_come(
    tmp_path: Path, ingest_into: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of other objects alone is not gathered in memory."""
    monkeypatch.setattr("data_catalog.jsonstream.BLOCK", 1 << 18)
    write(tmp_path, [annotation(i, category=2) for i in range(2 * LARGE)])
    adapter = load_adapter("coco")
    units = adapter.discover(tmp_path, {}).units
    parts = list(read_units(adapter, tmp_path, units, options={}, read_images=False))
    assert len(parts) > 1 and sum(len(part.rejects) for part in parts) == 2 * LARGE
    snapshot = ingest_into(tmp_path, "coco", images=False)
    counts = counts_found(snapshot)
    assert counts["rejects"] == counts["train.rejects"] == 2 * LARGE
    rows = snapshot.table("rejects", ["source_row"])["source_row"].to_numpy()
    assert (rows == np.arange(1, 2 * LARGE + 1)).all()


def named(*identities: Any, key: str = "person_id") -> list[dict[str, Any]]:
    return [{**annotation(i), key: identity} for i, identity in enumerate(identities)]


@pytest.mark.parametrize(
    ("identities", "expected", "rejects"),
    [
        ([7, 7.0, float("nan"), None, -1], ["7", "7", None, None, None], []),
        ([7, 8, -2], ["7", "8", None], []),
        (["x", "", "  ", "-1", "-x"], ["x", None, None, None, "-x"], []),
        ([1, [2], True, 7.5, float("inf"), {}], ["1"], [2, 3, 4, 5, 6]),
    ],
)
def test_what_is_an_identity(
    tmp_path: Path, ingest_into: Any, identities: list[Any], expected: list[Any], rejects: list[int]
) -> None:
    write(tmp_path, named(*identities))
    snapshot = ingest_into(tmp_path, "coco", images=False, person_id="person_id")
    assert snapshot.table("boxes")["person_id"].to_pylist() == expected
    found = snapshot.table("rejects").to_pylist()
    assert [(row["code"], row["source_row"]) for row in found] == [
        ("identity_unreadable", n) for n in rejects
    ]


def test_keys_that_nothing_carries_are_named(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, named(1, 2))
    with pytest.raises(CatalogError, match="2 annotations has a 'person'"):
        ingest_into(tmp_path, "coco", images=False, person_id="person")
    with pytest.raises(CatalogError, match=r"1 images has a 'cam'.*option camera_id"):
        ingest_into(tmp_path, "coco", images=False, camera_id="cam")
    write(tmp_path, named(None, None))  # it is there and names no one
    ingest_into(tmp_path, "coco", images=False, person_id="person_id")
    write(tmp_path, [])
    ingest_into(tmp_path, "coco", images=False, person_id="person")


def test_tracks_need_sequences(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, named(3, key="track"))
    with pytest.raises(CatalogError, match="has a 'sequence_id': name the key by the option sequence_id"):
        ingest_into(tmp_path, "coco", images=False, track_id="track")
    images = ({**IMAGE, "sequence_id": "s1"}, {"id": 2, "file_name": "b.jpg"})
    write(tmp_path, [*named(3, key="track"), {**annotation(9), "image_id": 2, "track": 3}], images=images)
    snapshot = ingest_into(tmp_path, "coco", images=False, track_id="track")
    assert snapshot.table("boxes")["person_id"].to_pylist() == ["s1/3"]
    assert snapshot.table("rejects")["detail"].to_pylist() == [
        "track 3 belongs to an image without a sequence"
    ]


def test_sequences_and_categories_of_odd_values(tmp_path: Path, ingest_into: Any) -> None:
    sequences = (float("nan"), " ", "\ud800", 4)
    images = tuple({"id": n, "file_name": f"{n}.jpg", "seq": value} for n, value in enumerate(sequences))
    write(tmp_path, [{**annotation(n), "image_id": n} for n in range(4)], images=images, person="\udfff")
    with_rejects = ingest_into(tmp_path, "coco", images=False, sequence_id="seq")
    assert with_rejects.table("images")["sequence_id"].to_pylist() == [None, None, "?", "4"]
    assert with_rejects.table("rejects")["detail"].to_pylist() == ["category 1: ?"] * 4


def test_categories_are_compared_in_any_case(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, [annotation(1)], person=" Person")
    assert counts_found(ingest_into(tmp_path, "coco", images=False))["boxes"] == 1
    write(tmp_path, [annotation(1)], person="Fußgänger")
    assert counts_found(ingest_into(tmp_path, "coco", images=False, categories="x, FUSSGÄNGER"))["boxes"] == 1


def test_an_empty_file_among_others_is_refused(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, [annotation(1)])
    (tmp_path / "val.json").touch()
    with pytest.raises(CatalogError, match=r"val\.json: the file is empty; restore it, or delete it"):
        ingest_into(tmp_path, "coco", images=False)


def test_a_file_without_people_says_what_it_holds(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, [annotation(1), annotation(2, 2), annotation(3, 2)], person="walker")
    found = {each.code: each.message for each in check_snapshot(ingest_into(tmp_path, "coco", images=False))}
    assert "split 'train' has 1 images and no box of a person, but 3 annotations" in found["outcome"]
    assert "(category 2: car, category 1: walker)" in found["outcome"]
    with pytest.raises(CatalogError, match="name the categories of people"):
        ingest_into(tmp_path, "coco", images=False, allow_empty=False)
    write(tmp_path, [annotation(1)])
    codes = {each.code for each in check_snapshot(ingest_into(tmp_path, "coco", images=False))}
    assert "outcome" not in codes


def test_coco_as_published(tmp_path: Path, ingest_into: Any) -> None:
    for split, number in (("train2017", 1), ("val2017", 2)):
        (tmp_path / split).mkdir()
        Image.new("RGB", (40, 30)).save(tmp_path / split / f"{number}.jpg")
        images = ({"id": number, "file_name": f"{number}.jpg"},)
        for kind in ("instances", "person_keypoints", "captions"):
            rows = [{**annotation(1), "image_id": number}]
            write(tmp_path, rows, file=f"annotations/{kind}_{split}.json", images=images)
    snapshot = ingest_into(tmp_path, "coco")
    images = snapshot.table("images")
    assert images["rel_path"].to_pylist() == ["train2017/1.jpg", "val2017/2.jpg"]
    assert images["split"].to_pylist() == ["train", "val"]
    edition = snapshot.table("datasets")["edition"][0].as_py()
    assert "annotations/captions_val2017.json" in edition
    chosen = ingest_into(tmp_path, "coco", annotations="annotations/person_keypoints_*.json")
    assert len(chosen.table("boxes")) == 2
    for file in (tmp_path / "annotations").iterdir():
        file.rename(tmp_path / file.name)
    assert ingest_into(tmp_path, "coco").table("images")["split"].to_pylist() == ["train", "val"]


def test_two_files_of_the_same_images_are_named(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, [annotation(1)], file="a.json")
    write(tmp_path, [annotation(1)], file="b.json")
    with pytest.raises(
        CatalogError, match=r"'a.jpg' appears twice, in a.json and in b.json.*annotations=FILE"
    ):
        ingest_into(tmp_path, "coco", images=False)


@pytest.mark.parametrize(
    ("file", "folder", "name", "path"),
    [
        ("train.json", "images/train", "a.jpg", "images/train/a.jpg"),
        ("train.json", "images/train", "train/a.jpg", "images/train/a.jpg"),
        ("train.json", "images", "a.jpg", "images/a.jpg"),
        ("train.json", "images", "train/a.jpg", "images/train/a.jpg"),
    ],
)
def test_folders_of_images(
    tmp_path: Path, ingest_into: Any, file: str, folder: str, name: str, path: str
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / path).parent.mkdir(exist_ok=True)
    Image.new("RGB", (40, 30)).save(tmp_path / path)
    write(tmp_path, [annotation(1)], file=file, images=({"id": 1, "file_name": name},))
    assert ingest_into(tmp_path, "coco").table("images")["rel_path"].to_pylist() == [path]


def test_no_images_are_no_error(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, [], images=())
    assert counts_found(ingest_into(tmp_path, "coco", images=False))["images"] == 0
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(CatalogError, match="it has no 'images'"):
        ingest_into(tmp_path, "coco", images=False)
