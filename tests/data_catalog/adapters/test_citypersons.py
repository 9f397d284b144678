"""CityPersons: the .mat files as its README documents them, and Cityscapes' own JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError

NAME = "aachen_00000{}_000019_leftImg8bit.png"


def cell(name: str, rows: Any, city: str = "aachen", dtype: str = "float64") -> np.ndarray:
    """One image: a cell that holds a struct of 1 x 1."""
    entry = np.empty((1, 1), dtype=[("cityname", object), ("im_name", object), ("bbs", object)])
    entry[0, 0] = (city, name, np.array(rows, dtype).reshape(-1, 10))
    return entry


def put_mat(root: Path, cells: list[np.ndarray], split: str = "train") -> None:
    value = np.empty((1, len(cells)), object)
    for at, each in enumerate(cells):
        value[0, at] = each
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / f"anno_{split}.mat", {f"anno_{split}_aligned": value}, do_compression=True)


def put_image(root: Path, name: str, split: str = "train") -> None:
    file = root / "leftImg8bit" / split / name.partition("_")[0] / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (512, 256)).save(file)


def corners(table: Any, prefix: str = "") -> list[list[float]]:
    names = (f"{prefix}{side}" for side in ("x1", "y1", "x2", "y2"))
    return np.stack([table[name].to_numpy() for name in names], axis=1).tolist()


def test_the_mat_files(tmp_path: Path, ingest_into: Any) -> None:
    rows = [
        [1, 10, 5, 20, 20, 24000, 12, 6, 10, 20],
        [2, 1, 1, 4, 8, 25000, 1, 1, 4, 8],
        [0, 0, 0, 9, 9, 0, 0, 0, 9, 9],
        [5, 200, 100, 250, 90, 0, 200, 100, 250, 90],
        [7, 1, 1, 2, 2, 0, 1, 1, 2, 2],
        [1, 1, 1, 0, 2, 0, 1, 1, 0, 2],
    ]
    for number in range(3):
        put_image(tmp_path, NAME.format(number))
    put_image(tmp_path, "munster_000000_000019_leftImg8bit.png", "val")
    put_mat(
        tmp_path / "annotations",
        [
            cell(NAME.format(0), rows, dtype="uint16"),
            cell(NAME.format(1), []),
            cell(NAME.format(9), rows[:1]),
        ],
    )
    put_mat(
        tmp_path / "annotations",
        [
            cell(
                "munster_000000_000019_leftImg8bit.png",
                [[1, 250, 1, 10, 10, 0, 0, 0, 0, 0]],
                "munster",
                "uint8",
            )
        ],
        "val",
    )
    snapshot = ingest_into(tmp_path, "citypersons")
    found = {i["rel_path"]: i["split"] for i in snapshot.table("images").to_pylist()}
    assert found == {
        f"leftImg8bit/train/aachen/{NAME.format(0)}": "train",
        f"leftImg8bit/train/aachen/{NAME.format(1)}": "train",
        "leftImg8bit/val/munster/munster_000000_000019_leftImg8bit.png": "val",
    }
    boxes = snapshot.table("boxes").filter(np.array(snapshot.table("boxes")["split"].to_pylist()) == "train")
    assert corners(boxes) == [
        [10, 5, 30, 25],
        [1, 1, 5, 9],
        [0, 0, 9, 9],
        [200, 100, 450, 190],
    ]  # no overflow
    assert corners(boxes, "visible_")[0] == [12, 6, 22, 26]
    assert boxes["visibility"].to_pylist()[0] == 0.5
    assert boxes["category"].to_pylist() == ["person", "rider", "ignore", "person group"]
    assert boxes["ignore_reason"].to_pylist() == [None, "rider", "ignore", "person group"]
    (val,) = snapshot.table("boxes").to_pylist()[len(boxes) :]
    assert (val["x1"], val["x2"], val["visible_x1"], val["visibility"]) == (250, 260, None, None)
    rejects = [(r["source_row"], r["code"]) for r in snapshot.table("rejects").to_pylist()]
    assert sorted(rejects) == [(5, "class_unknown"), (6, "box_empty"), (7, "image_missing")]
    assert (
        sum(
            ingest_into(tmp_path, "citypersons", categories="pedestrian,rider")
            .table("boxes")["ignore"]
            .to_pylist()
        )
        == 2
    )


def test_without_images(tmp_path: Path, ingest_into: Any) -> None:
    put_mat(tmp_path, [cell(NAME.format(0), [])], "val")
    snapshot = ingest_into(tmp_path, "citypersons", images=False)
    assert snapshot.table("images")["rel_path"].to_pylist() == [f"leftImg8bit/val/aachen/{NAME.format(0)}"]
    with pytest.raises(CatalogError, match="aachen"):
        ingest_into(tmp_path, "citypersons")


def test_cells_that_are_damaged(tmp_path: Path, ingest_into: Any) -> None:
    wide = cell(NAME.format(1), [])
    wide[0, 0]["bbs"] = np.zeros((2, 4))
    put_mat(
        tmp_path,
        [cell(NAME.format(0), []), wide, cell("../x.png", []), cell(NAME.format(0), []), np.zeros((1, 1))],
    )
    snapshot = ingest_into(tmp_path, "citypersons", images=False)
    assert snapshot.table("rejects")["code"].to_pylist() == ["image_unreadable"] * 4
    assert len(snapshot.table("images")) == 1


def put_json(root: Path, objects: Any, *, number: int = 0, split: str = "val") -> Path:
    file = (
        root / "gtBboxCityPersons" / split / "aachen" / f"aachen_00000{number}_000019_gtBboxCityPersons.json"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"imgHeight": 256, "imgWidth": 512, "objects": objects}))
    return file


def test_cityscapes_own_json(tmp_path: Path, ingest_into: Any) -> None:
    put_image(tmp_path, NAME.format(0), "val")
    objects = [
        {"instanceId": 24000, "bbox": [10, 5, 20, 20], "bboxVis": [12, 6, 10, 20], "label": "pedestrian"},
        {"instanceId": 0, "bbox": [1, 1, 4, 4], "bboxVis": [1, 1, 4, 4], "label": "ignore"},
        {"instanceId": 0, "bbox": [1, 1, 4], "label": "pedestrian"},
        {"instanceId": 0, "bbox": [1, 1, 4, 4], "label": "dog"},
        7,
    ]
    put_json(tmp_path, objects)
    put_json(tmp_path, objects, number=1)
    put_json(tmp_path, objects, number=2).write_text("{")
    snapshot = ingest_into(tmp_path, "citypersons")
    (image,) = snapshot.table("images").to_pylist()
    assert (image["image_id"], image["split"], image["width"]) == (NAME.format(0), "val", 512)
    boxes = snapshot.table("boxes")
    assert corners(boxes) == [[10, 5, 30, 25], [1, 1, 5, 5]]
    assert boxes["ignore"].to_pylist() == [False, True]
    codes = snapshot.table("rejects")["code"].to_pylist()
    assert sorted(codes) == ["file_unreadable", "image_missing"] + ["row_unreadable"] * 3


def test_the_archives_own_folders(tmp_path: Path, ingest_into: Any) -> None:
    outer = tmp_path / "gtBbox_cityPersons_trainval"
    put_json(outer, [], split="train")
    put_image(tmp_path / "leftImg8bit_trainvaltest", NAME.format(0))
    (image,) = ingest_into(tmp_path, "citypersons").table("images").to_pylist()
    assert image["rel_path"] == f"leftImg8bit_trainvaltest/leftImg8bit/train/aachen/{NAME.format(0)}"
    assert image["split"] == "train"


def test_refusals_name_the_layouts_and_what_is_near(tmp_path: Path) -> None:
    adapter = load_adapter("citypersons")
    (tmp_path / "citypersons_train.json").write_text("{}")
    with pytest.raises(CatalogError, match=r"anno_train\.mat.*leftImg8bit.*adapter coco"):
        adapter.discover(tmp_path, {})
    with pytest.raises(CatalogError, match="there is no class 'dog'"):
        adapter.discover(tmp_path, {"categories": "dog"})
    put_mat(tmp_path / "a", [])
    put_mat(tmp_path / "b", [])
    with pytest.raises(CatalogError, match="appears twice"):
        adapter.discover(tmp_path, {})


row = st.tuples(st.integers(0, 5), *(st.integers(1, 200) for _ in range(4)))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(row, max_size=5), st.sampled_from(["uint8", "uint16", "float64", "int32"]))
def test_what_is_written_is_read(tmp_path: Path, people: list[tuple[int, ...]], dtype: str) -> None:
    put_mat(tmp_path, [cell(NAME.format(0), [[*p, 0, *p[1:]] for p in people], dtype=dtype)])
    adapter = load_adapter("citypersons")
    (rows,) = adapter.read(tmp_path, adapter.discover(tmp_path, {}).units[0], {})
    boxes = rows.tables().boxes
    assert corners(boxes) == [[x, y, x + w, y + h] for _, x, y, w, h in people]
    assert boxes["ignore"].to_pylist() == [kind != 1 for kind, *_ in people]
