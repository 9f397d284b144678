"""Every real sample ingests to the counts that its provenance states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from data_catalog.ingest import counts_found

SAMPLES: list[tuple[str, str, bool, dict[str, str], dict[str, int]]] = [
    (
        "PRW-v16.04.20",
        "prw",
        True,
        {},
        {"images": 16, "train.images": 10, "test.images": 6, "train.boxes": 31, "test.boxes": 30,
         "train.ids": 9, "test.ids": 10, "queries": 26, "rejects": 0},
    ),
    (
        "PRW_annotations_only",
        "prw",
        False,
        {},
        {"train.images": 16, "train.boxes": 61, "test.images": 48, "test.boxes": 276, "queries": 2},
    ),
    (
        "MOT17",
        "mot17",
        True,
        {},
        {"images": 12, "boxes": 504, "boxes_with_id": 424, "ids": 64, "rejects": 444},
    ),
    (
        "CUHK-SYSU_rebuilt_mini",
        "cuhk-sysu",
        False,
        {},
        {"images": 95, "boxes": 95, "train.ids": 15, "queries": 15, "test.images": 42},
    ),
    (
        "WIDER_Pedestrian_2018",
        "wider-pedestrian",
        False,
        {"val": "val_annotations_verbatim5.txt"},
        {"val.images": 5, "val.boxes": 37, "rejects": 0},
    ),
    (
        "WIDER_Pedestrian_2018",
        "wider-pedestrian",
        False,
        {"val": "val_annotations_rebuilt.txt"},
        {"val.images": 5000, "val.boxes": 20_052, "rejects": 0},
    ),
    ("COCO_person", "coco", True, {}, {"images": 4, "boxes": 14, "rejects": 0}),
    ("CrowdHuman_annonly", "crowdhuman", False, {}, {"images": 1, "boxes": 7, "ignored": 1}),
    ("Market-1501", "market1501", True, {}, {"images": 2, "boxes": 2, "ids": 1, "query.queries": 2}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "adapter", "images", "options", "expected"),
    SAMPLES,
    ids=[f"{folder}-{next(iter(options.values()), 'default')}" for folder, _, _, options, _ in SAMPLES],
)
def test_counts_of_provenance(
    shared: Path,
    ingest_into: Any,
    folder: str,
    adapter: str,
    images: bool,
    options: dict[str, str],
    expected: dict[str, int],
) -> None:
    snapshot = ingest_into(shared / "data" / folder, adapter, images=images, **options)
    found = counts_found(snapshot)
    assert {name: found[name] for name in expected} == expected


def test_wider_images_without_boxes(shared: Path, ingest_into: Any) -> None:
    root = shared / "data" / "WIDER_Pedestrian_2018"
    snapshot = ingest_into(root, "wider-pedestrian", images=False, val="val_annotations_rebuilt.txt")
    assert pc.sum(pc.equal(snapshot.table("images", ["n_boxes"])["n_boxes"], 0)).as_py() == 1767


def test_wider_cyclists(shared: Path, ingest_into: Any) -> None:
    root = shared / "data" / "WIDER_Pedestrian_2018"
    snapshot = ingest_into(root, "wider-pedestrian", images=False, val="val_annotations_verbatim5.txt")
    categories = snapshot.table("boxes", ["category"])["category"].to_pylist()
    assert (categories.count("person"), categories.count("cyclist")) == (30, 7)


def test_mot17_rows_are_boxes_or_rejects(shared: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(shared / "data" / "MOT17", "mot17")
    boxes, rejects = snapshot.table("boxes"), snapshot.table("rejects")
    assert len(boxes) + len(rejects) == 156 + 792
    assert set(rejects["severity"].to_pylist()) == {"excluded"}
    people = boxes.filter(pc.invert(boxes["ignore"]))
    by_sequence = [name.split("/")[0] for name in people["image_id"].to_pylist()]
    assert (by_sequence.count("MOT17-02"), by_sequence.count("MOT17-04")) == (88, 336)


def test_test_g100(shared: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(shared / "data" / "CUHK-SYSU", "cuhk-sysu", images=False)
    counts = counts_found(snapshot)
    assert (counts["images"], counts["queries"], counts["gallery"]) == (6_978, 2_900, 290_000)
    assert (counts["ids"], counts["rejects"]) == (2_900, 0)
    gallery = snapshot.gallery("TestG100")
    assert pc.sum(gallery["is_positive"]).as_py() == 5_447
    boxes = snapshot.table("boxes")
    assert np.all(boxes["x2"].to_numpy() > boxes["x1"].to_numpy())
    assert pc.max(boxes["x2"]).as_py() > 255  # x + w overflows in the files' own integers


def test_camera_and_frame_of_prw(shared: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(shared / "data" / "PRW-v16.04.20", "prw")
    image = snapshot.table("images", filter=pc.field("image_id") == "c3s1_000501.jpg").to_pylist()[0]
    assert (image["camera_id"], image["frame_index"], image["split"]) == (3, 501, "train")
    assert (image["width"], image["height"]) == (1920, 1080)
    assert image["rel_path"] == "frames/c3s1_000501.jpg"
