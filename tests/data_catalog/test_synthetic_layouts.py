"""What is drawn in the layouts of CUHK-SYSU and WIDER Pedestrian is what their adapters read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from PIL import Image
from scipy.io import loadmat

from data_catalog.ingest import counts_found
from data_catalog.snapshot import Snapshot
from data_catalog.synthetic import (
    CuhkSysuSpec,
    WiderPedestrianSpec,
    write_cuhk_sysu,
    write_wider_pedestrian,
)

CUHK = CuhkSysuSpec(
    train_images=8,
    test_images=10,
    width=280,
    height=96,
    train_identities=6,
    test_identities=5,
    gallery_sizes=(4, 50),
)
WIDER = WiderPedestrianSpec(train_images=10, test_images=5, width=96, height=72, people=(0, 9), overlap=0.95)


@pytest.fixture
def cuhk_root(tmp_path: Path) -> Path:
    write_cuhk_sysu(tmp_path / "cuhk", CUHK, seed=2)
    return tmp_path / "cuhk"


@pytest.fixture
def cuhk(cuhk_root: Path, ingest_into: Any) -> Snapshot:
    snapshot: Snapshot = ingest_into(cuhk_root, "cuhk-sysu")
    return snapshot


def test_cuhk_sysu_has_the_drawn_images_boxes_and_people(cuhk: Snapshot, cuhk_root: Path) -> None:
    counts = counts_found(cuhk)
    annotation = cuhk_root / "annotation"
    drawn = loadmat(annotation / "Images.mat", squeeze_me=True)["Img"]
    people = loadmat(annotation / "Person.mat", squeeze_me=True)["Person"]
    assert (counts["train.images"], counts["test.images"]) == (CUHK.train_images, CUHK.test_images)
    assert counts["boxes"] == int(drawn["nAppear"].sum())
    assert counts["boxes_with_id"] == int(people["nAppear"].sum()) < counts["boxes"]
    assert (counts["ids"], counts["rejects"]) == (len(people), 0)


def test_people_of_cuhk_sysu_are_in_one_split(cuhk: Snapshot) -> None:
    counts = counts_found(cuhk)
    assert counts["train.ids"] and counts["test.ids"]
    assert counts["train.ids"] + counts["test.ids"] == counts["ids"]


def test_boxes_of_cuhk_sysu_lie_within_the_image(cuhk: Snapshot) -> None:
    boxes = cuhk.table("boxes")
    assert pc.min(boxes["x1"]).as_py() >= 1 and pc.min(boxes["y1"]).as_py() >= 1
    assert 256 < pc.max(boxes["x2"]).as_py() <= CUHK.width  # so that some are uint16 in the file
    assert pc.max(boxes["y2"]).as_py() <= CUHK.height


def test_galleries_of_cuhk_sysu_hold_every_other_box_of_the_person(cuhk: Snapshot) -> None:
    assert cuhk.protocols() == ["TestG4", "TestG50"]
    boxes = cuhk.table("boxes", ["image_id", "person_id", "box_id"]).to_pylist()
    gallery = cuhk.gallery("TestG50").to_pylist()
    queries = [row for row in cuhk.table("queries").to_pylist() if row["protocol"] == "TestG50"]
    assert queries and None not in {query["box_id"] for query in queries}
    for query in queries:
        listed = [row for row in gallery if row["query_id"] == query["query_id"]]
        names = [row["image_id"] for row in listed]
        assert len(names) == len(set(names)) == CUHK.test_images - 1 and query["image_id"] not in names
        positives = {row["image_id"] for row in listed if row["is_positive"]}
        seen = {box["image_id"] for box in boxes if box["person_id"] == query["person_id"]}
        assert positives == seen - {query["image_id"]} != set()


def test_a_gallery_is_as_large_as_its_name_says(cuhk: Snapshot) -> None:
    sizes = cuhk.gallery("TestG4").group_by("query_id").aggregate([([], "count_all")])["count_all"]
    assert set(sizes.to_pylist()) == {4}


def test_wider_pedestrian_has_the_drawn_people_and_ignore_regions(tmp_path: Path, ingest_into: Any) -> None:
    root = tmp_path / "wider"
    write_wider_pedestrian(root, WIDER, seed=2)
    snapshot = ingest_into(root, "wider-pedestrian")
    counts = counts_found(snapshot)
    assert (counts["train.images"], counts["val.images"]) == (WIDER.train_images, WIDER.test_images)
    numbers = {
        name: sum(len(line.split()) - 1 for line in (root / f"{name}.txt").read_text().splitlines())
        for name in ("train_annotations", "val_annotations", "pedestrian_ignore_part_train")
    }
    assert counts["train.boxes"] - counts["train.ignored"] == numbers["train_annotations"] // 5 > 0
    assert counts["train.ignored"] == numbers["pedestrian_ignore_part_train"] // 4 > 0
    assert counts["val.boxes"] - counts["val.ignored"] == numbers["val_annotations"] // 5
    assert counts["rejects"] == 0
    assert set(snapshot.table("boxes")["category"].to_pylist()) == {"person", "cyclist", "ignore"}
    assert 0 in snapshot.table("images")["n_boxes"].to_pylist()


def test_a_seed_decides_on_every_pixel(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_wider_pedestrian(tmp_path / name, WIDER, seed=seed)
    first, second, other = (
        Image.open(tmp_path / name / "Images" / "train" / "img00001.jpg").tobytes() for name in "abc"
    )
    assert first == second != other
