"""PoseTrack18's JSON, as its toolkit documents and writes it, and PoseTrack21's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError
from data_catalog.snapshot import ingest_findings

SEQUENCE = "000342_mpii_test"
CATEGORIES = [{"supercategory": "person", "id": 1, "name": "person", "keypoints": ["nose"], "skeleton": []}]


def frame(number: int, *, labelled: bool = True, **more: Any) -> dict[str, Any]:
    return {
        "has_no_densepose": True,
        "is_labeled": labelled,
        "file_name": f"images/val/{SEQUENCE}/{number:06d}.jpg",
        "nframes": 3,
        "frame_id": 10003420000 + number,
        "vid_id": "000342",
        "id": 10003420000 + number,
        **more,
    }


def person(number: int, track: Any, bbox: list[float] | None, **more: Any) -> dict[str, Any]:
    entry = {
        "bbox_head": [1, 1, 5, 5],
        "keypoints": [0] * 51,
        "track_id": track,
        "image_id": 10003420000 + number,
        "category_id": 1,
        "id": 1000342000000 + number,
        **more,
    }
    return entry if bbox is None else {**entry, "bbox": bbox}


def put(root: Path, images: list[Any], annotations: list[Any] | None, path: str = "annotations/val") -> Path:
    file = root / path / f"{SEQUENCE}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    value: dict[str, Any] = {"images": images, "categories": CATEGORIES}
    file.write_text(json.dumps(value if annotations is None else {**value, "annotations": annotations}))
    return file


def put_images(root: Path, count: int) -> None:
    folder = root / "images" / "val" / SEQUENCE
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (64, 48)).save(folder / f"{number:06d}.jpg")


def corners(table: Any) -> list[list[float]]:
    return np.stack([table[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1).tolist()


def test_people_tracks_and_ignore_regions(tmp_path: Path, ingest_into: Any) -> None:
    put_images(tmp_path, 3)
    regions = {"ignore_regions_x": [[2, 9, 5], [20, 30]], "ignore_regions_y": [[3, 4, 8], [20, 40]]}
    put(
        tmp_path,
        [frame(0, **regions), frame(1), frame(2, labelled=False)],
        [
            person(0, 0, [10, 5, 20, 35.5]),
            person(1, 0, [11, 5, 20, 35.5]),
            person(1, 1, None),
            person(1, 2, []),
            person(1, -1, [1, 1, 2, 2]),
            person(1, 3, [1, 1, 2, 2], category_id=2),
            person(9, 3, [1, 1, 2, 2]),
            person(1, [4], [1, 1, 2, 2]),
            person(1, 5, [1, 1, "x", 2]),
        ],
    )
    snapshot = ingest_into(tmp_path, "posetrack18")
    images = snapshot.table("images").to_pylist()
    assert [(i["image_id"], i["split"], i["sequence_id"], i["frame_index"]) for i in images] == [
        (f"val/{SEQUENCE}/{n:06d}.jpg", "val", SEQUENCE, n) for n in range(2)
    ]
    boxes = snapshot.table("boxes").sort_by([("ignore", "ascending"), ("source_row", "ascending")])
    assert corners(boxes) == [
        [10, 5, 30, 40.5],
        [11, 5, 31, 40.5],
        [1, 1, 3, 3],
        [2, 3, 9, 8],
        [20, 20, 30, 40],
    ]
    assert boxes["person_id"].to_pylist() == [f"{SEQUENCE}/0"] * 2 + [None] * 3
    assert boxes["ignore_reason"].to_pylist() == [None] * 3 + ["ignore_region"] * 2
    found = [(r["source_row"], r["code"]) for r in snapshot.table("rejects").to_pylist()]
    assert found == [
        (3, "row_unreadable"), (4, "row_unreadable"), (6, "not_a_person"), (7, "image_unknown"),
        (8, "row_unreadable"), (9, "row_unreadable"),
    ]  # fmt: skip
    details = snapshot.table("rejects")["detail"].to_pylist()
    assert details[0] == "annotation 3: a person without bbox"


def test_posetrack21_names_people_in_the_dataset(tmp_path: Path, ingest_into: Any) -> None:
    (tmp_path / "posetrack_person_search").mkdir()
    (tmp_path / "posetrack_person_search" / "query.json").write_text("{}")
    image = frame(
        0, labelled=False, has_labeled_person=True, vid_id=342, ignore_regions_x=[], ignore_regions_y=[]
    )
    put(tmp_path, [image], [person(0, 0, [1, 2, 3, 4], person_id=1024)], "posetrack_data/val")
    boxes = ingest_into(tmp_path, "posetrack18", images=False).table("boxes")
    assert boxes["person_id"].to_pylist() == [f"{SEQUENCE}/0"]
    boxes = ingest_into(tmp_path, "posetrack18", images=False, person_id="person_id").table("boxes")
    assert boxes["person_id"].to_pylist() == ["1024"]
    assert boxes["person_scope"].to_pylist() == ["dataset"]
    assert "adapter coco" in load_adapter("posetrack18").discover(tmp_path, {}).notes[0]


@pytest.mark.parametrize("annotations", [None, []])
def test_frames_without_labels_are_not_empty(
    tmp_path: Path, ingest_into: Any, annotations: list[Any] | None
) -> None:
    put(tmp_path, [frame(0)], annotations)
    snapshot = ingest_into(tmp_path, "posetrack18", images=False)
    assert len(snapshot.table("images")) == 0
    (reject,) = snapshot.table("rejects").to_pylist()
    assert (reject["severity"], reject["code"]) == ("excluded", "not_labelled")


@pytest.mark.parametrize(
    ("across", "down", "boxes", "codes"),
    [
        ([1, 9], [2, 8], 1, []),  # one polygon, without a list around it
        ([[]], [[]], 0, []),
        ([[1, 9]], [[2]], 0, ["region_unreadable"]),
        ([[1, 9]], None, 0, ["region_unreadable"]),
        ([[1, "x"]], [[1, 2]], 0, ["region_unreadable"]),
        ([[1, 1]], [[1, 2]], 0, ["box_empty"]),
        ("all", [[1, 2]], 0, ["region_unreadable"]),
    ],
)
def test_ignore_regions(
    tmp_path: Path, ingest_into: Any, across: Any, down: Any, boxes: int, codes: list[str]
) -> None:
    put(tmp_path, [frame(0, ignore_regions_x=across, ignore_regions_y=down)], [person(0, 0, [1, 2, 3, 4])])
    snapshot = ingest_into(tmp_path, "posetrack18", images=False)
    assert sum(snapshot.table("boxes")["ignore"].to_pylist()) == boxes
    assert snapshot.table("rejects")["code"].to_pylist() == codes


def test_refusals_name_the_layouts_and_what_is_near(tmp_path: Path) -> None:
    adapter = load_adapter("posetrack18")
    put(tmp_path / "posetrack18_data", [frame(0)], [])
    with pytest.raises(CatalogError, match=r"images/\{train,val\}.*give posetrack18_data as the root"):
        adapter.discover(tmp_path, {})
    coco = tmp_path / "coco"
    put(coco, [{"id": 1, "file_name": "a.jpg", "width": 3, "height": 4}], [])
    with pytest.raises(CatalogError, match="adapter coco"):
        adapter.discover(coco, {})
    put(tmp_path, [frame(0)], []).write_text('{"images": [')
    with pytest.raises(CatalogError, match=rf"{SEQUENCE}\.json: not readable as JSON"):
        adapter.discover(tmp_path, {})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=5)
)
def test_what_is_written_is_read(tmp_path: Path, people: list[tuple[int, int, int]]) -> None:
    put(tmp_path, [frame(0)], [person(0, track, [x, x + 1, w, w + 1]) for track, x, w in people])
    adapter = load_adapter("posetrack18")
    (rows,) = adapter.read(tmp_path, adapter.discover(tmp_path, {}).units[0], {})
    boxes = rows.tables().boxes
    assert corners(boxes) == [[x, x + 1, x + w, x + w + 2] for _, x, w in people]
    assert boxes["person_id"].to_pylist() == [None if t < 0 else f"{SEQUENCE}/{t}" for t, *_ in people]


def test_a_frame_that_is_not_there(tmp_path: Path, ingest_into: Any) -> None:
    put_images(tmp_path, 1)
    put(tmp_path, [frame(0), frame(1)], [person(0, 0, [1, 2, 3, 4]), person(1, 0, [1, 2, 3, 4])])
    snapshot = ingest_into(tmp_path, "posetrack18")
    assert len(snapshot.table("images")) == len(snapshot.table("boxes")) == 1
    assert snapshot.table("rejects")["code"].to_pylist() == ["image_missing", "image_unknown"]


def test_unlabelled_frames_are_not_left_over(tmp_path: Path, ingest_into: Any) -> None:
    put_images(tmp_path, 3)
    put(tmp_path, [frame(0), frame(1, labelled=False)], [person(0, 0, [1, 2, 3, 4])])
    assert ingest_findings(ingest_into(tmp_path, "posetrack18")) == []
    (tmp_path / "images" / "val" / SEQUENCE).rename(tmp_path / "images" / "val" / "000343_mpii_test")
    put_images(tmp_path, 1)
    (found,) = ingest_findings(ingest_into(tmp_path, "posetrack18"))
    assert "000343_mpii_test" in found.message
