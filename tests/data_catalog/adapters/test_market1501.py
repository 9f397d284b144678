"""Crops of Market-1501, MARS, DukeMTMC-reID and of folders per person."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError
from data_catalog.snapshot import ingest_findings
from data_catalog.validation import check_snapshot

Found = tuple[str, str | None, bool]


def write(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16 + number, 32), (number, 0, 0)).save(root / name)
    return root


def found(snapshot: Any) -> dict[str, Found]:
    return {
        row["image_id"]: (row["split"], row["person_id"], row["ignore"])
        for row in snapshot.table("boxes").to_pylist()
    }


CROPS: dict[str, dict[str, Found]] = {
    "market": {
        "bounding_box_train/0002_c1s1_000451_03.jpg": ("train", "0002", False),
        "bounding_box_test/-1_c1s1_000401_03.jpg": ("test", None, True),
        "bounding_box_test/0000_c1s1_000151_01.jpg": ("test", None, False),
        "bounding_box_test/0003_c6s4_000901_02.jpg": ("test", "0003", False),
        "query/0003_c1s6_015971_00.jpg": ("query", "0003", False),
    },
    "mars": {
        "bbox_train/0001/0001C1T0001F001.jpg": ("train", "0001", False),
        "bbox_test/0002/0002C3T0004F012.jpg": ("test", "0002", False),
        "bbox_test/0000/0000C6T0001F001.jpg": ("test", None, False),
        "bbox_test/00-1/00-1C1T0001F001.jpg": ("test", None, True),
    },
    "duke": {
        "bounding_box_train/0005_c2_f0046985.jpg": ("train", "0005", False),
        "query/0005_c2_f0046985.jpg": ("query", "0005", False),
    },
    "market in a folder per person": {
        "bounding_box_train/0002/0002_c1s1_000451_03.jpg": ("train", "0002", False),
        "query/0003/0003_c1s6_015971_00.jpg": ("query", "0003", False),
    },
    "market in folders of other names": {
        "train/0002_c1s1_000451_03.jpg": ("train", "0002", False),
        "gallery/-1_c1s1_000401_03.jpg": ("test", None, True),
    },
    "a folder per person": {
        "train/17/a.jpg": ("train", "17", False),
        "train/0/b.jpg": ("train", "0", False),
        "val/18/c.jpg": ("val", "18", False),
        "gallery/-1/d.jpg": ("test", None, True),
        "gallery/0000/e.jpg": ("test", None, False),
        "gallery/-2/f.jpg": ("test", None, False),
        "query/19/g.jpg": ("query", "19", False),
    },
}


@pytest.mark.parametrize("name", CROPS)
def test_crops(tmp_path: Path, ingest_into: Any, name: str) -> None:
    expected = CROPS[name]
    snapshot = ingest_into(write(tmp_path / "root", *expected), "market1501")
    assert found(snapshot) == expected
    asked = [path for path, (split, person, _) in expected.items() if split == "query" and person]
    assert snapshot.table("queries")["image_id"].to_pylist() == asked


@pytest.mark.parametrize(("person", "warned"), [("0003", False), ("0002", True)])
def test_queries_share_identities_with_test_by_design_and_not_with_train(
    tmp_path: Path, ingest_into: Any, person: str, warned: bool
) -> None:
    others = ("bounding_box_train/0002_c1s1_000451_03.jpg", "bounding_box_test/0003_c6s4_000901_02.jpg")
    snapshot = ingest_into(write(tmp_path, *others, f"query/{person}_c1s6_015971_00.jpg"), "market1501")
    assert ("identity_in_two_splits" in {each.code for each in check_snapshot(snapshot)}) == warned


def test_camera_track_and_frame_of_mars(tmp_path: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(write(tmp_path / "root", "bbox_train/0001/0001C4T0002F013.jpg"), "market1501")
    (image,) = snapshot.table("images").to_pylist()
    assert (image["camera_id"], image["sequence_id"], image["frame_index"]) == (4, "0002", 13)


def test_a_crop_in_another_persons_folder_is_a_reject(tmp_path: Path, ingest_into: Any) -> None:
    names = ("bbox_train/0001/0001C1T0001F001.jpg", "bbox_train/0001/0002C1T0001F001.jpg")
    snapshot = ingest_into(write(tmp_path / "root", *names), "market1501")
    assert snapshot.table("rejects")["code"].to_pylist() == ["identity_conflict"]
    assert list(found(snapshot)) == [names[0]]


def test_a_name_that_is_not_utf8_is_told(tmp_path: Path, ingest_into: Any) -> None:
    root = write(tmp_path / "root", "query/0003_c1s6_015971_00.jpg")
    crop = next(root.rglob("*.jpg"))
    bad = os.fsdecode(os.fsencode(crop.parent) + b"/0003_c1s6_01597\xff_00.jpg")
    Path(bad).write_bytes(crop.read_bytes())
    snapshot = ingest_into(root, "market1501")
    assert "name_left_over" in [each.code for each in ingest_findings(snapshot)]
    assert len(snapshot.table("boxes")) == 1


def test_another_pattern_reads_plain_folders(tmp_path: Path, ingest_into: Any) -> None:
    root = write(tmp_path / "root", "train/p7-cam2.jpg")
    pattern = r"p(?P<person>\d+)-cam(?P<camera>\d+)"
    assert found(ingest_into(root, "market1501", pattern=pattern)) == {
        "train/p7-cam2.jpg": ("train", "7", False)
    }


@pytest.mark.parametrize(
    ("names", "nearest"),
    [
        (("sets/market/query/0003_c1s6_015971_00.jpg",), "give sets/market as the root"),
        (("train/images/a.jpg",), "Nearest found: train/images/a.jpg, but"),
        (("a.jpg",), "Nearest found: files of .jpg"),
    ],
)
def test_refusals_name_what_was_looked_for(tmp_path: Path, names: tuple[str, ...], nearest: str) -> None:
    with pytest.raises(CatalogError, match="looked for bounding_box_train") as error:
        load_adapter("market1501").discover(write(tmp_path, *names), {})
    assert nearest in str(error.value)
