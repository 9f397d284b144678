"""Inputs from the field that CrowdHuman and WIDER Pedestrian have to read right, and their kinds."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError
from data_catalog.ingest import counts_found
from tests.data_catalog.coco_files import Ingest, column, picture


def crowd_line(name: Any, **more: Any) -> str:
    person = {"tag": "person", "fbox": [1, 2, 20, 30], "vbox": [1, 2, 10, 30], **more}
    return json.dumps({"ID": name, "gtboxes": [person]}) + "\n"


@pytest.mark.parametrize(
    ("files", "folders", "options"),
    [
        (["annotation_train.odgt", "annotation_val.odgt"], ["Images", "Images"], {}),
        (["annotation_train.odgt", "annotation_val.odgt"], ["images", "images"], {"images": "./images"}),
        (
            ["annotation_train.odgt", "annotation_val.odgt"],
            ["CrowdHuman_train01/Images", "CrowdHuman_val/Images"],
            {},
        ),
        (["annotations/crowd_train.odgt", "annotations/crowd_valid.odgt"], ["a/train", "a/val"], {}),
    ],
)
def test_crowdhuman_layouts(
    tmp_path: Path, ingest_into: Ingest, files: list[str], folders: list[str], options: dict[str, str]
) -> None:
    for number, (file, folder) in enumerate(zip(files, folders, strict=True)):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(crowd_line(f"{number},é"))
        picture(tmp_path / folder / unicodedata.normalize("NFD", f"{number},é.jpg"), number)
        (tmp_path / folder / f"._{number},é.jpg").write_bytes(b"")
    counts = counts_found(ingest_into(tmp_path, "crowdhuman", **options))
    assert (counts["train.boxes"], counts["val.boxes"], counts["rejects"]) == (1, 1, 0)


def test_crowdhuman_numbers_and_names(tmp_path: Path, ingest_into: Ingest) -> None:
    lines = [
        crowd_line("a", fbox=["1", "2.0", 20.0, 30], extra={"ignore": "1"}),
        crowd_line("b", fbox=[1, 2, 20, 30], extra={"ignore": 0}),
        crowd_line(7),
        crowd_line("a"),
        crowd_line("c", fbox=["x", 2, 3, 4]),
    ]
    (tmp_path / "annotation_train.odgt").write_text("".join(lines))
    for name in ("a.png", "b.JPG", "7.jpg", "c.jpeg"):
        picture(tmp_path / "Images" / name)
    snapshot = ingest_into(tmp_path, "crowdhuman")
    paths = [f"Images/{name}" for name in ("a.png", "b.JPG", "7.jpg", "c.jpeg")]
    assert column(snapshot, "images", "rel_path") == paths
    assert column(snapshot, "boxes", "ignore") == [True, False, False]
    assert sorted(column(snapshot, "rejects", "code")) == ["box_unreadable", "image_twice"]


def test_crowdhuman_refusal(tmp_path: Path) -> None:
    adapter = load_adapter("crowdhuman")
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(
        CatalogError, match=r"annotation_train\.odgt.*: files of \.json \(1\), such as train\.json"
    ):
        adapter.discover(tmp_path, {})
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "annotation_val.odgt").write_text("")
    with pytest.raises(CatalogError, match=r"Nearest found: a/b/annotation_val\.odgt"):
        adapter.discover(tmp_path, {})


def test_wider_numbers_and_names(tmp_path: Path, ingest_into: Ingest) -> None:
    text = "img1.jpg 1.0 1 2 30.5 4e1\n./img2.jpg\nImg3.jpg 1 1 2 x 4\nimg4.jpg 1.5 1 2 3 4\nimg1.jpg\n"
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "Train_annotations.txt").write_text(text)
    (tmp_path / "pedestrian_ignore_part_train.txt").write_text(".\\img2.jpg 1.0 2 3 4\nimg9.jpg 1 2 3 4\n")
    for name in ("img1.jpg", "sub/img2.jpg", "img4.jpg", "._img1.jpg"):
        picture(tmp_path / "Images" / "train" / name)
    snapshot = ingest_into(tmp_path, "wider-pedestrian")
    assert column(snapshot, "images", "rel_path") == [
        "Images/train/img1.jpg",
        "Images/train/sub/img2.jpg",
        "Images/train/img4.jpg",
    ]
    boxes = snapshot.table("boxes")
    assert np.allclose(boxes["x2"].to_numpy(), [31.5, 4]) and boxes["ignore"].to_pylist() == [False, True]
    codes = ["class_unknown", "image_twice", "image_unknown", "row_unreadable"]
    assert sorted(column(snapshot, "rejects", "code")) == codes


def test_wider_lists_an_image_that_is_not_there(tmp_path: Path, ingest_into: Ingest) -> None:
    (tmp_path / "val_annotations.txt").write_text("a.jpg 1 1 2 3 4\nb.jpg 1 1 2 3 4\n")
    picture(tmp_path / "val" / "a.jpg")
    with pytest.raises(CatalogError, match=r"val/b\.jpg: an annotated image is missing"):
        ingest_into(tmp_path, "wider-pedestrian")


def test_wider_refusal(tmp_path: Path) -> None:
    adapter = load_adapter("wider-pedestrian")
    with pytest.raises(CatalogError, match=r"train_annotations\.txt and val_annotations\.txt.*no files"):
        adapter.discover(tmp_path, {})
    (tmp_path / "val.txt").write_text("a.jpg 1 1 2 3 4\n")
    with pytest.raises(CatalogError, match=r": val\.txt; name other files with the options"):
        adapter.discover(tmp_path, {})
    assert adapter.discover(tmp_path, {"val": "./val.txt"}).units[0].source == "val.txt"
