"""Damaged exports give rows and rejects, or one CatalogError, as damaged files of the other formats do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError
from data_catalog.ingest import read_units
from tests.data_catalog.adapters.test_citypersons import NAME, cell, put_json, put_mat
from tests.data_catalog.adapters.test_cvat import BOX, document, image, track
from tests.data_catalog.adapters.test_damaged_files import _mutate
from tests.data_catalog.adapters.test_posetrack18 import SEQUENCE, frame, person, put
from tests.data_catalog.adapters.test_voc import PERSON, xml

COUNT = 200


def _jde(root: Path) -> None:
    for kind in ("images", "labels_with_ids"):
        (root / kind / "train").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(root / "images" / "train" / "a.jpg")
    (root / "labels_with_ids" / "train" / "a.txt").write_text("0 7 0.5 0.5 0.25 0.5\n0 -1 0.1 0.1 0.1 0.1\n")
    (root / "jde.train").write_text("jde/images/train/a.jpg\n")


def _voc(root: Path) -> None:
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "Annotations" / "a.xml").write_text(xml(PERSON, f"<difficult>1</difficult>{PERSON}"))
    (root / "Annotations" / "b.xml").write_text(xml(PERSON))
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")


def _cvat(root: Path) -> None:
    polygon = '<polygon label="person" points="1,2;9,4;5,8"></polygon>'
    body = image("a.jpg", BOX.format(1, '<attribute name="id">7</attribute>'), polygon)
    (root / "annotations.xml").write_text(document(body + track(0, {0: "0", 1: "1"})))


def _posetrack(root: Path) -> None:
    regions = {"ignore_regions_x": [[2, 9, 5]], "ignore_regions_y": [[3, 4, 8]]}
    put(
        root,
        [frame(0, **regions), frame(1, labelled=False)],
        [person(0, 0, [1, 2, 3, 4]), person(0, 1, None)],
    )


def _citypersons(root: Path) -> None:
    put_mat(root, [cell(NAME.format(0), [[1, 10, 5, 20, 20, 24000, 12, 6, 10, 20]], dtype="uint16")])


def _cityscapes(root: Path) -> None:
    put_json(
        root, [{"instanceId": 1, "bbox": [10, 5, 20, 20], "bboxVis": [12, 6, 10, 20], "label": "pedestrian"}]
    )


CASES: list[tuple[str, Callable[[Path], None], str, bool]] = [
    ("jde", _jde, "labels_with_ids/train/a.txt", True),
    ("jde", _jde, "images/train/a.jpg", True),
    ("jde", _jde, "jde.train", True),
    ("voc", _voc, "Annotations/a.xml", False),
    ("voc", _voc, "ImageSets/Main/train.txt", False),
    ("cvat", _cvat, "annotations.xml", False),
    ("posetrack18", _posetrack, f"annotations/val/{SEQUENCE}.json", False),
    ("citypersons", _citypersons, "anno_train.mat", False),
    (
        "citypersons",
        _cityscapes,
        "gtBboxCityPersons/val/aachen/aachen_000000_000019_gtBboxCityPersons.json",
        False,
    ),
]
IDS = [f"{name}-{Path(file).name}" for name, _, file, _ in CASES]


@pytest.mark.parametrize(("adapter", "write", "file", "images"), CASES, ids=IDS)
def test_mutations(
    tmp_path: Path, adapter: str, write: Callable[[Path], None], file: str, images: bool
) -> None:
    write(tmp_path)
    _mutate(tmp_path, file, adapter, COUNT, images)


WHOLE = {
    "empty": b"",
    "binary": bytes(range(256)) * 40,
    "other format": b"PK\x03\x04" + bytes(100),
    "number": b"7",
    "list": json.dumps([[]]).encode(),
}


@pytest.mark.parametrize("damage", WHOLE)
@pytest.mark.parametrize(("adapter", "write", "file", "images"), CASES, ids=IDS)
def test_a_file_that_is_nothing_is_told(
    tmp_path: Path, adapter: str, write: Callable[[Path], None], file: str, images: bool, damage: str
) -> None:
    if (Path(file).suffix, damage) == (".txt", "empty"):
        pytest.skip("an empty text file is a sound one")
    write(tmp_path)
    (tmp_path / file).write_bytes(WHOLE[damage])
    chosen = load_adapter(adapter)
    try:
        layout = chosen.discover(tmp_path, {})
        tables = list(read_units(chosen, tmp_path, layout.units, options={}, read_images=images))
    except CatalogError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert sum(len(each.rejects) for each in tables) > 0
