"""Looking at images: narrow boxes are drawn, damaged files are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_catalog.adapters import load_adapter
from data_catalog.decode_checks import DecodedImages, undecodable_images
from data_catalog.drawing import draw_image
from data_catalog.errors import CatalogError
from data_catalog.ingest import ingest_root
from data_catalog.perceptual import difference_hashes
from data_catalog.snapshot import Snapshot, image_digests
from flows.cli.datasets import app
from flows.errors import ConfigError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image with a box that is half a pixel wide."""
    folder = tmp_path / "root"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.jpg")
    boxes = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [30, 5, w, h]}
        for i, (w, h) in enumerate([(0.5, 20), (20, 0.5), (20, 30)])
    ]
    value = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": boxes,
    }
    (folder / "train.json").write_text(json.dumps(value))
    return folder


@pytest.fixture
def snapshot(root: Path, ingest_into: Any) -> Snapshot:
    made: Snapshot = ingest_into(root, "coco")
    return made


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_truncated_image_is_a_finding_among_others(root: Path) -> None:
    Image.open(root / "a.jpg").save(root / "b.jpg")
    value = json.loads((root / "train.json").read_text())
    value["images"].append({"id": 2, "file_name": "b.jpg"})
    (root / "train.json").write_text(json.dumps(value))
    cut_off(root / "a.jpg")
    arguments = ["check", str(root), "--adapter", "coco", "--near-duplicates"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert (
        "image_undecodable: 1 images cannot be decoded, so they are not compared" in result.output
        and "a.jpg" in result.output
    )


def test_images_that_do_not_decode_are_named_and_the_others_decoded_once(root: Path, tmp_path: Path) -> None:
    sizes = {f"{number}.jpg": (20 + number, 30) for number in range(8)}
    for name, size in sizes.items():
        Image.new("RGB", size).save(root / name)
    cut = root / "3.jpg"
    cut.write_bytes(cut.read_bytes()[:-8])  # the header is whole
    images = [{"id": number, "file_name": name} for number, name in enumerate(sizes)]
    value = {"images": images, "categories": [], "annotations": []}
    (root / "train.json").write_text(json.dumps(value))
    work = tmp_path / "decoded"
    work.mkdir()
    ingest_root(root, load_adapter("coco"), work, allow_empty=True)
    found = Snapshot(work).table("images")
    assert {row["image_id"]: (row["width"], row["height"]) for row in found.to_pylist()} == sizes
    memory = DecodedImages(tmp_path / "memory")
    decoded: list[int] = []
    for _ in range(2):
        faults = undecodable_images(root, image_digests(found), memory, lambda _, n: decoded.append(n))
        assert list(faults) == ["3.jpg"] and "truncated" in faults["3.jpg"]
    assert decoded == [len(sizes), 1]


def test_a_picture_of_a_format_that_is_not_known_is_refused(root: Path, tmp_path: Path) -> None:
    arguments = ["show", "coco", "a.jpg", "--store", str(tmp_path), "--root", str(root)]
    with pytest.raises(ConfigError, match=r"x\.foo: the file name must end with"):
        CliRunner().invoke(app, [*arguments, "--out", "x.foo"], catch_exceptions=False)


def test_a_box_narrower_than_a_pixel_is_drawn(root: Path, snapshot: Snapshot) -> None:
    drawn = np.asarray(draw_image(snapshot, "a.jpg", root))
    assert (drawn[5:25, 30] == (240, 160, 20)).all()


def test_a_truncated_image_is_named(root: Path, snapshot: Snapshot) -> None:
    cut_off(root / "a.jpg")
    with pytest.raises(CatalogError, match=r"a\.jpg"):
        draw_image(snapshot, "a.jpg", root)
    (said,) = difference_hashes({"a": root / "a.jpg"}).undecodable
    assert "a.jpg: not a readable image" in said


@pytest.mark.parametrize("adapter", ["coco", "crowdhuman", "yolo"])
def test_a_folder_of_images_outside_the_root_is_refused(root: Path, adapter: str) -> None:
    (root / "annotation_train.odgt").write_text("")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    with pytest.raises(CatalogError, match="option images"):
        load_adapter(adapter).discover(root, {"images": str(root.parent)})
