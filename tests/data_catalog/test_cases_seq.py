"""Inputs from the field that YOLO, MOT, PRW, CUHK-SYSU and crops were read wrongly from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_catalog.errors import CatalogError
from data_catalog.ingest import counts_found
from data_catalog.snapshot import Snapshot

COUNTS: list[tuple[str, str, dict[str, int]]] = [
    ("yolo_upper_TXT/data", "yolo", {"images": 2, "boxes": 2, "rejects": 0}),
    ("yolo_classes_txt/data", "yolo", {"images": 2, "boxes": 2, "rejects": 0}),
    ("yolo_roboflow/data", "yolo", {"train.images": 2, "train.boxes": 2, "val.images": 2, "val.boxes": 2}),
    ("yolo_roboflow/data/valid", "yolo", {"images": 2, "boxes": 2}),
    ("roboflow_val/yolo", "yolo", {"train.images": 2, "val.images": 1, "val.boxes": 1}),
    ("mot_savetxt/data", "mot17", {"images": 2, "boxes": 4, "ids": 2, "rejects": 0}),
    ("mot_track_minus1/data", "mot17", {"boxes": 4, "boxes_with_id": 0, "ids": 0}),
    ("mot_val_split/data", "mot17", {"train.boxes": 4, "val.images": 2, "val.boxes": 4, "val.ids": 2}),
    ("hidden_mot/data", "mot17", {"images": 2, "boxes": 4}),
    ("hidden_prw/data", "prw", {"images": 2, "boxes": 2, "queries": 1}),
]


@pytest.mark.parametrize(("case", "adapter", "expected"), COUNTS, ids=[case for case, _, _ in COUNTS])
def test_counts(shared: Path, ingest_into: Any, case: str, adapter: str, expected: dict[str, int]) -> None:
    found = counts_found(ingest_into(shared / "cases" / case, adapter))
    assert {name: found[name] for name in expected} == expected


def test_labels_txt_says_who_is_a_person(shared: Path, ingest_into: Any) -> None:
    snapshot: Snapshot = ingest_into(shared / "cases" / "cvat_mot_labels", "mot17", images=False)
    (box,) = snapshot.table("boxes").to_pylist()
    (reject,) = snapshot.table("rejects").to_pylist()
    assert (box["person_id"], box["category"], box["x1"], box["y2"]) == ("seq1/2", "person", 299, 319)
    assert (reject["severity"], reject["detail"]) == ("excluded", "class 1: car")


def test_a_folder_that_is_a_link_is_followed(shared: Path, tmp_path: Path, ingest_into: Any) -> None:
    case = shared / "cases" / "symlinked_split"
    for kind, target in (("images", "img"), ("labels", "lab")):
        (tmp_path / "data" / kind).mkdir(parents=True)
        (tmp_path / "data" / kind / "train").symlink_to(case / "elsewhere" / target)
    found = counts_found(ingest_into(tmp_path / "data", "yolo"))
    assert (found["train.images"], found["train.boxes"]) == (1, 1)


def test_labels_in_pixels_are_one_error(shared: Path, ingest_into: Any) -> None:
    with pytest.raises(CatalogError, match=r"labels are in pixels.*labels/a\.txt: '0 32 24 12 30'"):
        ingest_into(shared / "cases" / "box_outside_image" / "pixels", "yolo")


def test_a_split_list_that_names_no_image(shared: Path, ingest_into: Any) -> None:
    with pytest.raises(CatalogError, match=r"of 2 images that it lists for test 1 are not .*'s9\.jpg'"):
        ingest_into(shared / "cases" / "cuhk_pool_unmatched" / "data", "cuhk-sysu")


def test_numbers_of_savetxt_are_the_numbers(shared: Path, ingest_into: Any) -> None:
    boxes = ingest_into(shared / "cases" / "mot_savetxt" / "data", "mot17").table("boxes")
    assert boxes["person_id"].to_pylist() == ["S-01/1", "S-01/2"] * 2
    assert np.array_equal(boxes["x1"].to_numpy(), [24, 44, 24, 44])
