"""YOLO: splits by the names of folders, and boxes only where the size of the image is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError
from data_catalog.ingest import read_units


def write(root: Path, folder: str, label: str = "0 0.5 0.5 0.5 0.5\n") -> None:
    for kind in ("images", "labels"):
        (root / kind / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48)).save(root / "images" / folder / "a.jpg")
    (root / "labels" / folder / "a.txt").write_text(label)


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"),
        ("train2017", "train"),
        ("training", "train"),
        ("valid", "val"),
        ("val2017", "val"),
        ("Validation", "val"),
        ("test-dev2017", "test"),
        ("holdout", "holdout"),
        ("trainings", "trainings"),
        ("cam1/monday", "cam1"),
        ("", "train"),
    ],
)
def test_splits_are_what_folders_say(tmp_path: Path, folder: str, split: str) -> None:
    write(tmp_path, folder)
    assert [unit.split for unit in load_adapter("yolo").discover(tmp_path, {}).units] == [split]


def test_an_unreadable_image_takes_its_rows_to_the_rejects(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, "train", "0 0.5 0.5 0.5 0.5\n0 0.2 0.2 0.1 0.1\n")
    (tmp_path / "images" / "train" / "a.jpg").write_bytes(b"no image")
    snapshot = ingest_into(tmp_path, "yolo")
    rejects = snapshot.table("rejects")
    assert sorted(rejects["code"].to_pylist()) == ["image_rejected", "image_rejected", "image_unreadable"]
    assert len(snapshot.table("boxes")) == len(snapshot.table("images")) == 0
    units = load_adapter("yolo").discover(tmp_path, {}).units
    tables = list(read_units(load_adapter("yolo"), tmp_path, units, options={}, read_images=False))
    assert sum(len(each.boxes) for each in tables) == 0  # the adapter itself makes up no size


@pytest.mark.parametrize("adapter", ["yolo", "market1501"])
def test_images_that_give_the_sizes_cannot_be_left_out(
    tmp_path: Path, ingest_into: Any, adapter: str
) -> None:
    write(tmp_path, "train")
    with pytest.raises(CatalogError, match="sizes from the images"):
        ingest_into(tmp_path, adapter, images=False)
