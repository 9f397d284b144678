"""Values of COCO files from the field: ids, boxes, flags and nested keys, however they are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_catalog.errors import CatalogError
from data_catalog.validation import check_snapshot
from tests.data_catalog.coco_files import PERSON, Ingest, box, column, write

IDS: list[Callable[[int], Any]] = [
    int,
    float,
    str,
    lambda n: f"{n}.0",
    lambda n: f" {n} ",
    lambda n: f"{n:06d}",
    lambda n: f"scene-{n}",
    lambda n: f"{n:032x}e{n}",
    lambda n: n if n % 2 else str(n),
    lambda n: n if n % 2 else float(n),
]


@pytest.mark.parametrize("of_image", IDS)
def test_ids_are_read_however_they_are_written(
    tmp_path: Path, ingest_into: Ingest, of_image: Callable[[int], Any]
) -> None:
    images = [{"id": of_image(n), "file_name": f"{n}.jpg"} for n in range(1, 9)]
    rows = [box(of_image(n + 40), of_image(n), category_id=of_image(n % 2)) for n in range(1, 9)]
    kinds = [{"id": of_image(0), "name": "car"}, {"id": of_image(1), "name": "person"}]
    write(tmp_path / "train.json", [], rows, images=images, categories=kinds)
    snapshot = ingest_into(tmp_path, "coco", images=False)
    assert column(snapshot, "boxes", "image_id") == ["1.jpg", "3.jpg", "5.jpg", "7.jpg"]
    assert set(column(snapshot, "rejects", "code")) == {"not_a_person"}


@pytest.mark.parametrize(
    "written",
    [
        ["10", "8", "12", "30"],
        ["10.0", " 8", "1.2e1", 30],
        [10.0, 8, 12, 30.0],
        "[10, 8, 12, 30]",
        "10 8 12 30",
        "10.0;8;12;30",
    ],
)
def test_boxes_are_read_however_they_are_written(tmp_path: Path, ingest_into: Ingest, written: Any) -> None:
    write(tmp_path / "train.json", ["a.jpg"], [box(bbox=written), box(2)])
    boxes = ingest_into(tmp_path, "coco", images=False).table("boxes")
    assert [boxes[name].to_pylist() for name in ("x1", "y1", "x2", "y2")] == [
        [10] * 2,
        [8] * 2,
        [22] * 2,
        [38] * 2,
    ]


@pytest.mark.parametrize("written", [["a", 8, 12, 30], [1, 2, 3], "1,2,3", ["nan", 1, 2, 3], None, {"x": 1}])
def test_boxes_that_are_none_are_rejects(tmp_path: Path, ingest_into: Ingest, written: Any) -> None:
    write(tmp_path / "train.json", ["a.jpg"], [box(bbox=written), box(2)])
    snapshot = ingest_into(tmp_path, "coco", images=False)
    assert column(snapshot, "rejects", "code") == ["row_unreadable"]
    assert column(snapshot, "rejects", "detail")[0].startswith("bbox: ")


@pytest.mark.parametrize(
    ("crowd", "ignore", "reason"),
    [
        (0, 1, "ignore"),
        (0, True, "ignore"),
        (0, "1", "ignore"),
        (0, 1.0, "ignore"),
        (False, "true", "ignore"),
        (1, 1, "crowd"),
        ("1", 0, "crowd"),
        (None, "0", None),
        (0, None, None),
        (0, float("nan"), None),
    ],
)
def test_what_makes_an_ignore_region(
    tmp_path: Path, ingest_into: Ingest, crowd: Any, ignore: Any, reason: str | None
) -> None:
    write(tmp_path / "train.json", ["a.jpg"], [box(iscrowd=crowd, ignore=ignore, who=3)])
    snapshot = ingest_into(tmp_path, "coco", images=False, person_id="who")
    assert column(snapshot, "boxes", "ignore_reason") == [reason]
    assert column(snapshot, "boxes", "ignore") == [reason is not None]
    assert column(snapshot, "boxes", "person_id") == [None if reason else "3"]


@pytest.mark.parametrize("value", ["yes", [1], {}])
def test_a_flag_that_is_none_is_a_reject(tmp_path: Path, ingest_into: Ingest, value: Any) -> None:
    write(tmp_path / "train.json", ["a.jpg"], [box(ignore=value), box(2)])
    assert column(ingest_into(tmp_path, "coco", images=False), "rejects", "source_row") == [1]


def test_nested_keys_of_images_and_of_boxes(tmp_path: Path, ingest_into: Ingest) -> None:
    images = [
        {"id": 1, "file_name": "a.jpg", "meta": {"video": {"name": "v1"}, "cam": "2"}},
        {"id": 2, "file_name": "b.jpg", "meta": {"video": {"name": "v2"}, "cam": 3.0}, "extra": [1]},
        {"id": 3, "file_name": "c.jpg", "meta": None},
    ]
    rows = [
        box(1, 1, attributes={"track_id": 7, "occluded": False}),
        box(2, 2, attributes={"track_id": "7.0"}),
        box(3, 2, attributes=[]),
        box(4, 1, attributes={"track_id": -1}),
        box(5, 1, **{"attributes.track_id": 9}),
    ]
    write(tmp_path / "train.json", [], rows, images=images)
    options = {"track_id": "attributes.track_id", "sequence_id": "meta.video.name", "camera_id": "meta.cam"}
    snapshot = ingest_into(tmp_path, "coco", images=False, **options)
    assert column(snapshot, "images", "sequence_id") == ["v1", "v2", None]
    assert column(snapshot, "images", "camera_id") == [2, 3, None]
    assert column(snapshot, "boxes", "person_id") == ["v1/7", "v2/7", None, None, "v1/9"]
    with pytest.raises(CatalogError, match=r"none of its 5 annotations has a 'attributes\.track'"):
        ingest_into(tmp_path, "coco", images=False, person_id="attributes.track")
    with pytest.raises(CatalogError, match=r"none of its 3 images has a 'meta\.camera'"):
        ingest_into(tmp_path, "coco", images=False, camera_id="meta.camera")


def test_ids_twice_are_said(tmp_path: Path, ingest_into: Ingest) -> None:
    images = [{"id": n % 3, "file_name": f"{n}.jpg"} for n in range(8)]
    write(tmp_path / "train.json", [], images=images)
    with pytest.raises(CatalogError, match=r"the id of an earlier image.* 0 \(0\.jpg and 3\.jpg\).*, \.\.\."):
        ingest_into(tmp_path, "coco", images=False)
    both = [*PERSON, {"id": "1", "name": "car"}]
    write(tmp_path / "train.json", ["a.jpg"], categories=both)
    with pytest.raises(CatalogError, match="'person' and 'car' have one id: 1"):
        ingest_into(tmp_path, "coco", images=False)


def test_annotation_ids_twice_are_a_finding(tmp_path: Path, ingest_into: Ingest) -> None:
    write(tmp_path / "train.json", ["a@2.jpg"], [box(7), box(7), box(8), box("x@3"), box("7")])
    found = {each.code: each for each in check_snapshot(ingest_into(tmp_path, "coco", images=False))}
    assert found["annotation_id_twice"].count == 2
    assert "a@2.jpg#7@2, a@2.jpg#7@5" in found["annotation_id_twice"].message
