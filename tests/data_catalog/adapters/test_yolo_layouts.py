"""YOLO as its exporters write it: layouts, names of classes, lists, kinds of rows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_catalog.adapters import load_adapter
from data_catalog.adapters.yolo_labels import NotFractions, read_label
from data_catalog.errors import CatalogError
from data_catalog.ingest import counts_found
from data_catalog.outcome import refuse_outcome
from data_catalog.snapshot import ingest_findings

ROW = "0 0.5 0.5 0.5 0.5\n"


def image(path: Path, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 50 + sum(map(ord, path.name)) % 50).convert("RGB").save(path)


def text(path: Path, content: str = ROW) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def tree(root: Path, images: Iterable[str], texts: dict[str, str]) -> Path:
    for name in images:
        image(root / name)
    for name, content in texts.items():
        text(root / name, content)
    return root


def ids_by_split(snapshot: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in snapshot.table("images", ["image_id", "split"]).to_pylist():
        found.setdefault(row["split"], []).append(row["image_id"])
    return found


LAYOUTS: dict[str, tuple[list[str], dict[str, str], dict[str, list[str]]]] = {
    "ultralytics": (
        ["images/train/a.jpg", "images/val/b.jpg"],
        {"labels/train/a.txt": ROW, "labels/val/b.txt": ROW, "data.yaml": "names: {0: person}\n"},
        {"train": ["train/a.jpg"], "val": ["val/b.jpg"]},
    ),
    "roboflow": (
        ["train/images/a.jpg", "valid/images/b.jpg", "test/images/c.jpg"],
        {"train/labels/a.txt": ROW, "valid/labels/b.txt": ROW, "test/labels/c.txt": ROW,
         "data.yaml": "train: ../train/images\nval: ../valid/images\nnames: ['person']\n",
         "README.roboflow.txt": "exported\n"},
        {"train": ["train/a.jpg"], "val": ["valid/b.jpg"], "test": ["test/c.jpg"]},
    ),
    "labelimg": (
        ["a.jpg", "b.JPG"],
        {"a.txt": ROW, "b.txt": ROW, "classes.txt": "person\n", "notes.txt": "to be done\n"},
        {"train": ["a.jpg", "b.JPG"]},
    ),
    "label studio": (
        ["images/a.jpg"],
        {"labels/a.txt": ROW, "classes.txt": "person\ndog\n", "notes.json": "{}"},
        {"train": ["a.jpg"]},
    ),
    "darknet of CVAT": (
        ["obj_train_data/a.jpg", "obj_valid_data/b.jpg"],
        {"obj_train_data/a.txt": ROW, "obj_valid_data/b.txt": ROW, "obj.names": "person\n",
         "obj.data": "classes = 1\n", "train.txt": "data/obj_train_data/a.jpg\n"},
        {"train": ["obj_train_data/a.jpg"], "val": ["obj_valid_data/b.jpg"]},
    ),
    "lists of Ultralytics": (
        ["images/a.jpg", "images/b.jpg", "images/c.jpg"],
        {"labels/a.txt": ROW, "labels/b.txt": ROW, "labels/c.txt": ROW,
         "train.txt": "./images/a.jpg\n/content/datasets/mine/images/b.jpg\n", "val.txt": "./images/c.jpg\n",
         "data.yaml": "path: /content\ntrain: train.txt\nval: val.txt\nnames: [person]\n"},
        {"train": ["a.jpg", "b.jpg"], "val": ["c.jpg"]},
    ),
    "folders of data.yaml": (
        ["images/monday/a.jpg", "images/friday/b.jpg"],
        {"labels/monday/a.txt": ROW, "labels/friday/b.txt": ROW,
         "my.yaml": "train: images/monday\nval: [images/friday]\nnames: [person]\n"},
        {"train": ["monday/a.jpg"], "val": ["friday/b.jpg"]},
    ),
    "one split of Roboflow": (["images/a.jpg"], {"labels/a.txt": ROW}, {"train": ["a.jpg"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path: Path, ingest_into: Any, name: str) -> None:
    images, texts, expected = LAYOUTS[name]
    snapshot = ingest_into(tree(tmp_path / "root", images, texts), "yolo")
    assert ids_by_split(snapshot) == expected
    assert len(snapshot.table("boxes")) == len(images)
    assert len(snapshot.table("rejects")) == 0


@pytest.mark.parametrize(
    ("texts", "options", "people"),
    [
        ({}, {}, [0]),
        ({"classes.txt": "dog\nPerson\n"}, {}, [1]),
        ({"labels/classes.txt": "pedestrian\ncar\npeople\n"}, {}, [0, 2]),
        ({"data.yaml": "names: {0: car, 2: person}\n"}, {}, [2]),
        ({"data.yaml": "names: [label_0, label_1]\n"}, {}, [0]),
        ({"data.yaml": "names: [car, dog]\n"}, {}, []),
        ({"data.yaml": "names: [car, dog]\n"}, {"classes": "1"}, [1]),
        ({"data.yaml": "names: [car, dog]\n"}, {"classes": "dog,2"}, [1, 2]),
        ({"data.yaml": "nc: 1\n"}, {}, [0]),
    ],
)
def test_who_is_a_person(
    tmp_path: Path, ingest_into: Any, texts: dict[str, str], options: dict[str, str], people: list[int]
) -> None:
    rows = "0 0.1 0.5 0.1 0.5\n1 0.4 0.5 0.1 0.5\n2 0.7 0.5 0.1 0.5\n"
    root = tree(tmp_path / "root", ["images/a.jpg"], {"labels/a.txt": rows, **texts})
    snapshot = ingest_into(root, "yolo", **options)
    assert snapshot.table("boxes")["source_row"].to_pylist() == [kind + 1 for kind in people]
    assert set(snapshot.table("rejects")["code"].to_pylist()) <= {"not_a_person"}


def test_files_that_name_other_people_are_refused(tmp_path: Path) -> None:
    texts = {"labels/a.txt": ROW, "classes.txt": "car\nperson\n", "data.yaml": "names: [person, car]\n"}
    root = tree(tmp_path, ["images/a.jpg"], texts)
    with pytest.raises(CatalogError, match=r"data\.yaml and classes\.txt .*--option classes"):
        load_adapter("yolo").discover(root, {})


def test_orphan_labels_are_rejects(tmp_path: Path, ingest_into: Any) -> None:
    texts = {"labels/a.txt": ROW, "labels/b.txt": ROW + ROW, "labels/c.txt": ""}
    snapshot = ingest_into(tree(tmp_path / "root", ["images/a.jpg"], texts), "yolo")
    rejects = [(row["source_file"], row["source_row"]) for row in snapshot.table("rejects").to_pylist()]
    assert rejects == [("labels/b.txt", 1), ("labels/b.txt", 2), ("labels/c.txt", 0)]
    assert len(snapshot.table("boxes")) == 1


def test_list_entries_without_an_image_are_rejects(tmp_path: Path, ingest_into: Any) -> None:
    texts = {"labels/a.txt": ROW, "labels/b.txt": ROW, "train.txt": "images/a.jpg\n\nimages/z.jpg\n"}
    snapshot = ingest_into(tree(tmp_path / "root", ["images/a.jpg", "images/b.jpg"], texts), "yolo")
    (reject,) = snapshot.table("rejects").to_pylist()
    assert (reject["code"], reject["source_file"], reject["source_row"]) == ("entry_unknown", "train.txt", 3)
    assert ids_by_split(snapshot) == {"train": ["a.jpg"]}  # b.jpg is in no list


def test_an_image_without_a_label_has_no_people(tmp_path: Path, ingest_into: Any) -> None:
    root = tree(tmp_path / "root", ["images/a.jpg", "images/b.jpg"], {"labels/a.txt": ROW})
    assert counts_found(ingest_into(root, "yolo"))["images"] == 2
    notes = load_adapter("yolo").discover(root, {}).notes
    assert notes == ("1 of 2 images have no label file: they count as images without people",)


@pytest.mark.parametrize(("split", "is_refused"), [("test", False), ("val", True)])
def test_only_a_test_split_may_have_no_labels(
    tmp_path: Path, ingest_into: Any, split: str, is_refused: bool
) -> None:
    images = ["images/train/a.jpg", f"images/{split}/b.jpg"]
    root = tree(tmp_path / "root", images, {"labels/train/a.txt": ROW})
    if is_refused:
        with pytest.raises(CatalogError, match="split 'val' has 1 images and no box"):
            refuse_outcome(ingest_into(root, "yolo", allow_empty=False))
    else:
        refuse_outcome(ingest_into(root, "yolo", allow_empty=False))


def test_two_images_of_one_name_share_their_label(tmp_path: Path, ingest_into: Any) -> None:
    root = tree(tmp_path / "root", ["images/a.jpg", "images/a.png"], {"labels/a.txt": ROW})
    snapshot = ingest_into(root, "yolo")
    assert snapshot.table("boxes")["image_id"].to_pylist() == ["a.jpg", "a.png"]


def test_a_name_that_is_not_utf8_is_told(tmp_path: Path, ingest_into: Any) -> None:
    root = tree(tmp_path / "root", ["images/a.jpg"], {"labels/a.txt": ROW})
    jpeg = (root / "images" / "a.jpg").read_bytes()
    for name, content in ((b"images/b\xff.jpg", jpeg), (b"labels/b\xff.txt", ROW.encode())):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(content)
    snapshot = ingest_into(root, "yolo")
    (told,) = [each for each in ingest_findings(snapshot) if each.code == "name_left_over"]
    assert told.count == 2 and "udcff.jpg" in told.message
    assert len(snapshot.table("boxes")) == 1


def test_data_yaml_in_the_folder_below(tmp_path: Path, ingest_into: Any) -> None:
    texts = {"coco8/labels/val/a.txt": "1 0.5 0.5 0.5 0.5\n", "coco8/data.yaml": "names: [car, person]\n"}
    snapshot = ingest_into(tree(tmp_path / "root", ["coco8/images/val/a.jpg"], texts), "yolo")
    assert snapshot.table("boxes")["split"].to_pylist() == ["val"]


def test_ids_that_would_collide_carry_their_folders(tmp_path: Path, ingest_into: Any) -> None:
    root = tree(
        tmp_path / "root",
        ["images/train/a.jpg", "train/images/a.jpg"],
        {"labels/train/a.txt": ROW, "train/labels/a.txt": ROW},
    )
    assert ids_by_split(ingest_into(root, "yolo")) == {"train": ["images/train/a.jpg", "train/images/a.jpg"]}


@pytest.mark.parametrize(
    ("row", "corners"),
    [
        ("0 0.5 0.5 0.5 0.5", (16, 12, 48, 36)),
        ("0.0 0.5 0.5 0.5 0.5", (16, 12, 48, 36)),
        ("0.000e+00\t5.0e-1  0.5 0.5 0.5\r", (16, 12, 48, 36)),
        ("0 0.5 0.5 0.5 0.5 0.87", (16, 12, 48, 36)),
        ("0 0.25 0.25 0.75 0.25 0.75 0.75", (16, 12, 48, 36)),
        ("0 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75", (16, 12, 48, 36)),
        ("0 0.5 0.5 0.5 0.5 0.3 0.3 2 0 0 0 0.4 0.4 1", (16, 12, 48, 36)),
    ],
)
def test_kinds_of_rows(tmp_path: Path, ingest_into: Any, row: str, corners: tuple[float, ...]) -> None:
    root = tree(tmp_path / "root", ["images/a.jpg"], {"labels/a.txt": "\ufeff" + row + "\n"})
    (box,) = ingest_into(root, "yolo").table("boxes").to_pylist()
    assert np.allclose([box[name] for name in ("x1", "y1", "x2", "y2")], corners)


@pytest.mark.parametrize(
    "row",
    ["0 0.5 0.5 0.5", "x 0.5 0.5 0.5 0.5", "0.5 0.5 0.5 0.5 0.5", "0 0.5 0.5 nan 0.5", "0 0.5 0.5 0.5 0.5 17",
     "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7", "0"],
)  # fmt: skip
def test_rows_that_are_none(row: str) -> None:
    with pytest.raises(ValueError, match=r"not|column"):
        read_label(row.split())


@pytest.mark.parametrize("identity", ["-1", "2", "417", "417.0"])
def test_identities_of_jde_are_no_pixels(identity: str) -> None:
    with pytest.raises(ValueError, match="use the adapter jde"):
        read_label(["0", identity, "0.5", "0.5", "0.1", "0.3"])


coordinate = st.floats(0, 1, width=32)


@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=30))
def test_the_box_of_a_polygon_holds_its_corners_and_no_more(corners: list[tuple[float, float]]) -> None:
    label = read_label(["3", *(repr(float(value)) for corner in corners for value in corner)])
    xs, ys = zip(*corners, strict=True)
    assert label.kind == 3
    assert label.box == (min(xs), min(ys), max(xs), max(ys))


@given(st.integers(3, 5000), st.integers(3, 5000), st.floats(0, 5000), st.floats(0, 5000))
def test_pixels_are_never_taken_for_fractions(x: int, y: int, w: float, h: float) -> None:
    with pytest.raises(NotFractions, match="pixels"):
        read_label(["0", str(x), str(y), str(w), str(h)])


def test_one_row_in_pixels_is_a_reject(tmp_path: Path, ingest_into: Any) -> None:
    root = tree(tmp_path / "root", ["images/a.jpg"], {"labels/a.txt": ROW + ROW + "0 32 24 12 30\n"})
    snapshot = ingest_into(root, "yolo")
    assert snapshot.table("rejects")["code"].to_pylist() == ["not_fractions"]
    assert len(snapshot.table("boxes")) == 2


def test_a_confidence_is_said_and_not_kept(tmp_path: Path) -> None:
    root = tree(tmp_path, ["images/a.jpg"], {"labels/a.txt": "0 0.5 0.5 0.5 0.5 0.9\n"})
    assert "confidence: it is not kept" in load_adapter("yolo").discover(root, {}).notes[0]


@pytest.mark.parametrize(
    ("images", "texts", "nearest"),
    [
        (["images/a.jpg"], {}, "images/a.jpg, but there is no folder labels"),
        (
            ["data/mine/images/a.jpg"],
            {"data/mine/labels/a.txt": ROW},
            "data/mine/images/a.jpg: give a folder",
        ),
        (["images/a.jpg"], {"labels_with_ids/a.txt": ROW}, "use the adapter jde"),
        (["Images/a.jpg"], {"Labels/a.txt": ROW}, "--option images=Images --option labels=Labels"),
        (["a.jpg"], {"b.txt": ROW}, "b.txt, but no image has its name"),
        (["a.jpg"], {"a.txt": "a man in the street\n"}, "hold no rows"),
        ([], {}, "Nearest found: no files"),
    ],
)
def test_refusals_name_what_was_looked_for(
    tmp_path: Path, images: list[str], texts: dict[str, str], nearest: str
) -> None:
    with pytest.raises(CatalogError, match="is not a YOLO dataset") as error:
        load_adapter("yolo").discover(tree(tmp_path, images, texts), {})
    assert nearest in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: " + "[" * 20_000, "more than 50 mappings or lists lie inside each other"),
        (
            "a: &a [x]\n"
            + "\n".join(
                f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]" for i in range(12)
            )
            + "\nnames: *m\n",
            "stand for more than 100,000 values",
        ),
        ("names: {0: person, 0: car}\n", "names.0 appears twice"),
        ("names: [person]\n# " + "x" * (1 << 20), "larger than 1 MiB"),
    ],
)
def test_a_data_yaml_that_hangs_or_says_two_things_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    root = tree(tmp_path, ["images/a.jpg"], {"labels/a.txt": ROW, "data.yaml": text})
    with pytest.raises(CatalogError, match=message) as error:
        load_adapter("yolo").discover(root, {})
    assert "data.yaml" in str(error.value) and "\n" not in str(error.value)


def test_a_pipe_called_data_yaml_is_not_opened(tmp_path: Path) -> None:
    root = tree(tmp_path, ["images/a.jpg"], {"labels/a.txt": ROW})
    os.mkfifo(root / "data.yaml")
    assert len(load_adapter("yolo").discover(root, {}).units) == 1
