"""COCO datasets from the field that have to be read right, and their kinds: files, layouts and names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError
from data_catalog.ingest import counts_found
from tests.data_catalog.coco_files import Ingest, box, column, picture, write

CASES: list[tuple[str, dict[str, str], dict[str, int]]] = [
    ("all_rows_damaged/data", {}, {"images": 2, "boxes": 2, "rejects": 0}),
    ("coco_dot_slash/data", {}, {"images": 1, "boxes": 1, "rejects": 0}),
    ("coco_dot_slash/plain", {"images": "./images"}, {"images": 1, "boxes": 1, "rejects": 0}),
    (
        "coco_nested_track_id/data",
        {"track_id": "attributes.track_id", "sequence_id": "video_id"},
        {"images": 1, "boxes_with_id": 1, "ids": 1},
    ),
    ("coco_same_names_in_splits/data", {}, {"images": 2, "train.boxes": 1, "val.boxes": 1, "rejects": 0}),
    ("coco_text_category_id/data", {}, {"images": 1, "boxes": 1, "rejects": 0}),
    ("coco_unicode_form/data", {}, {"images": 1, "boxes": 1, "rejects": 0}),
    (
        "roboflow_val/coco",
        {"categories": "label_0,label_1"},
        {"train.images": 2, "train.boxes": 2, "val.images": 1, "val.boxes": 2, "val.ignored": 1},
    ),
]


@pytest.mark.parametrize(("folder", "options", "expected"), CASES, ids=[case[0] for case in CASES])
def test_case(
    shared: Path, ingest_into: Ingest, folder: str, options: dict[str, str], expected: dict[str, int]
) -> None:
    found = counts_found(ingest_into(shared / "cases" / folder, "coco", **options))
    assert {name: found[name] for name in expected} == expected


def test_case_ignore(shared: Path, ingest_into: Ingest) -> None:
    snapshot = ingest_into(shared / "cases" / "coco_ignore", "coco", images=False)
    assert column(snapshot, "boxes", "ignore") == [False, True]
    assert column(snapshot, "boxes", "ignore_reason") == [None, "ignore"]


def test_case_identity_is_the_track(shared: Path, ingest_into: Ingest) -> None:
    options = {"track_id": "attributes.track_id", "sequence_id": "video_id"}
    snapshot = ingest_into(shared / "cases" / "coco_nested_track_id" / "data", "coco", **options)
    assert column(snapshot, "boxes", "person_id") == ["1/7"]
    assert column(snapshot, "boxes", "person_id_raw") == ["7"]


def test_case_ids_carry_their_splits_folder(shared: Path, ingest_into: Ingest) -> None:
    snapshot = ingest_into(shared / "cases" / "coco_same_names_in_splits" / "data", "coco")
    assert column(snapshot, "images", "image_id") == ["train/000001.jpg", "val/000001.jpg"]
    assert column(snapshot, "images", "rel_path") == ["images/train/000001.jpg", "images/val/000001.jpg"]
    assert column(snapshot, "boxes", "box_id") == ["train/000001.jpg#1", "val/000001.jpg#1"]


def same_names(root: Path, folders: Iterable[str]) -> None:
    for folder in folders:
        write(root / "annotations" / f"instances_{folder}.json", ["1.jpg", f"{folder}.jpg"])


def test_same_names_without_images(tmp_path: Path, ingest_into: Ingest) -> None:
    same_names(tmp_path, ["train", "val"])
    write(tmp_path / "annotations" / "instances_test.json", ["other.jpg"])
    images = ingest_into(tmp_path, "coco", images=False).table("images")
    expected = ["other.jpg", "train/1.jpg", "train/train.jpg", "val/1.jpg", "val/val.jpg"]
    assert images["image_id"].to_pylist() == expected
    write(tmp_path / "annotations" / "more_train.json", ["1.jpg"])
    with pytest.raises(CatalogError, match=r"'train/1\.jpg' appears twice"):
        ingest_into(tmp_path, "coco", images=False)


def test_same_names_of_one_folder_are_one_image(tmp_path: Path, ingest_into: Ingest) -> None:
    same_names(tmp_path, ["train", "val"])
    for name in ("1", "train", "val"):
        picture(tmp_path / "images" / f"{name}.jpg")
    with pytest.raises(CatalogError, match=r"'1\.jpg' appears twice"):
        ingest_into(tmp_path, "coco")


def test_sequences_of_the_same_names_are_told_apart_too(tmp_path: Path, ingest_into: Ingest) -> None:
    for split in ("train", "val"):
        images = [{"id": 1, "file_name": "1.jpg", "video_id": 1}]
        write(tmp_path / split / "_annotations.coco.json", [], [box(who=7)], images=images)
        picture(tmp_path / split / "1.jpg")
    snapshot = ingest_into(tmp_path, "coco", track_id="who", sequence_id="video_id")
    assert column(snapshot, "boxes", "person_id") == ["train/1/7", "val/1/7"]


LAYOUTS: dict[str, tuple[dict[str, list[str]], dict[str, str], list[tuple[str, str]]]] = {
    "coco": (
        {"annotations/instances_train2017.json": ["a.jpg"], "annotations/instances_val2017.json": ["b.jpg"]},
        {},
        [("train", "train2017/a.jpg"), ("val", "val2017/b.jpg")],
    ),
    "cvat": (
        {"annotations/instances_default.json": ["a.jpg", "sub/b.jpg"]},
        {},
        [("train", "images/default/a.jpg"), ("train", "images/default/sub/b.jpg")],
    ),
    "datumaro": (
        {"annotations/instances_train.json": ["a.jpg"], "annotations/instances_Gate-2.json": ["b.jpg"]},
        {},
        [("Gate-2", "images/Gate-2/b.jpg"), ("train", "images/train/a.jpg")],
    ),
    "fiftyone": ({"labels.json": ["a.jpg"]}, {}, [("train", "data/a.jpg")]),
    "fiftyone with splits": (
        {"train/labels.json": ["a.jpg"], "validation/labels.json": ["a.jpg"]},
        {},
        [("train", "train/data/a.jpg"), ("val", "validation/data/a.jpg")],
    ),
    "label studio": ({"result.json": ["images/a.jpg"]}, {}, [("train", "images/a.jpg")]),
    "label studio, told": ({"result.json": ["images/a.jpg"]}, {"images": "."}, [("train", "images/a.jpg")]),
    "label studio on windows": ({"result.json": ["images\\a.jpg"]}, {}, [("train", "images/a.jpg")]),
    "roboflow": (
        {f"{split}/_annotations.coco.json": [f"{split}.jpg"] for split in ("train", "valid", "test")},
        {},
        [("test", "test/test.jpg"), ("train", "train/train.jpg"), ("val", "valid/valid.jpg")],
    ),
    "a folder for each site": (
        {"north/coco.json": ["1.jpg"], "south/coco.json": ["1.jpg"]},
        {},
        [("north", "north/images/1.jpg"), ("south", "south/images/1.jpg")],
    ),
    "ultralytics": (
        {"annotations/train.json": ["a.jpg"], "annotations/valid.json": ["a.jpg"]},
        {},
        [("train", "train/images/a.jpg"), ("val", "valid/images/a.jpg")],
    ),
    "one folder too high": (
        {"export/train/_annotations.coco.json": ["a.jpg"]},
        {},
        [("train", "export/train/a.jpg")],
    ),
    "other folders of images": ({"people.json": ["a.jpg"]}, {}, [("train", "JPEGImages/a.jpg")]),
    "names with their split": (
        {"annotations/instances_val.json": ["val/a.jpg"]},
        {},
        [("val", "images/val/a.jpg")],
    ),
    "a pattern": (
        {"labels/a_train.json": ["a.jpg"], "labels/a_val.json": ["b.jpg"]},
        {"annotations": "./labels/*_val.json", "images": "./images/"},
        [("val", "images/b.jpg")],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("linked", [False, True], ids=["files", "links"])
def test_layouts_that_exporters_write(tmp_path: Path, ingest_into: Ingest, layout: str, linked: bool) -> None:
    """With folders that are links, too, and with what a system leaves behind."""
    sources, options, expected = LAYOUTS[layout]
    root = tmp_path / "root"
    for source, names in sources.items():
        write(root / source, names)
        (root / source).with_name(f"._{Path(source).name}").write_bytes(b"\x00\x05\x16\x07")
    for shade, (_, path) in enumerate(expected):
        picture(root / path, shade)
        (root / path).with_name(".hidden.jpg").write_bytes(b"")
        (root / path).with_name("Thumbs.db").write_bytes(b"")
    if linked:
        for folder in [each for each in root.iterdir() if each.is_dir()]:
            folder.rename(tmp_path / folder.name)
            folder.symlink_to(tmp_path / folder.name)
    snapshot = ingest_into(root, "coco", **options)
    images = zip(column(snapshot, "images", "split"), column(snapshot, "images", "rel_path"), strict=True)
    assert sorted(images) == expected
    assert (len(column(snapshot, "boxes", "box_id")), len(column(snapshot, "rejects", "code"))) == (
        len(expected),
        0,
    )


SPELLINGS = [
    ("é.jpg", "é.jpg"),
    (unicodedata.normalize("NFD", "é.jpg"), "é.jpg"),
    ("é.jpg", unicodedata.normalize("NFD", "é.jpg")),
    ("./a.jpg", "a.jpg"),
    (".\\x\\a.jpg", "x/a.jpg"),
    ("x//a.jpg", "x/a.jpg"),
    ("x/./a b.jpg", "x/a b.jpg"),
    (".\\ä\\日本.jpg", unicodedata.normalize("NFD", "ä/日本.jpg")),
]


@pytest.mark.parametrize(("written", "file"), SPELLINGS)
def test_names_are_matched_however_they_are_spelled(
    tmp_path: Path, ingest_into: Ingest, written: str, file: str
) -> None:
    write(tmp_path / "annotations" / "instances_train.json", [written])
    picture(tmp_path / "images" / file)
    snapshot = ingest_into(tmp_path, "coco")
    assert column(snapshot, "images", "rel_path") == [f"images/{file}"]
    plain = written.isascii() or "\\" not in written
    assert not plain or column(snapshot, "images", "image_id") == [
        written.replace("\\", "/").replace("./", "").replace("//", "/")
    ]


def test_a_name_without_a_file_is_said(tmp_path: Path, ingest_into: Ingest) -> None:
    write(tmp_path / "train.json", ["a.jpg", "b.jpg"])
    picture(tmp_path / "images" / "a.jpg")
    (note,) = load_adapter("coco").discover(tmp_path, {}).notes
    assert note.startswith("1 of the first 2 names of images in train.json (b.jpg)")
    with pytest.raises(CatalogError, match=r"images/b\.jpg: an annotated image is missing"):
        ingest_into(tmp_path, "coco")


def test_names_that_no_file_has_are_noted(tmp_path: Path) -> None:
    write(tmp_path / "train.json", ["a.jpg", "b.jpg"])
    picture(tmp_path / "images" / "c.jpg")
    (note,) = load_adapter("coco").discover(tmp_path, {}).notes
    assert "2 of the first 2 names of images in train.json (a.jpg, b.jpg)" in note
    assert "1 image files (images/c.jpg)" in note


def test_two_folders_that_may_be_meant_are_noted(tmp_path: Path) -> None:
    write(tmp_path / "a.json", ["1.jpg"])
    for folder in ("cam1", "cam2"):
        picture(tmp_path / folder / "1.jpg")
    (note,) = load_adapter("coco").discover(tmp_path, {}).notes
    assert "cam1 or in cam2" in note and "option images" in note
    layout = load_adapter("coco").discover(tmp_path, {"images": "cam2"})
    assert (layout.notes, layout.images) == ((), ("cam2/1.jpg",))


REFUSED = [
    ({}, {}, r"looked for \*\.json .*_annotations\.coco\.json.* Nearest found: no files"),
    ({"labels/a.txt": "", "data.yaml": ""}, {}, r"files of \.txt \(1\), \.yaml \(1\), such as data\.yaml"),
    ({"a.json": "[1]"}, {}, r"Nearest found: a\.json, which is not a JSON object"),
    ({"train.json": "{}"}, {}, r"train\.json, which is not COCO JSON: it has no 'images'"),
    ({"a/b/c/d.json": '{"images": []}'}, {}, r"can be named: --option annotations=a/b/c/d\.json"),
    (
        {"train.json": '{"images": []}'},
        {"annotations": "x.json"},
        r"file x\.json\. Nearest found: train\.json",
    ),
    ({"train.json": '{"images": []}'}, {"images": "../x"}, r"option images='\.\./x': the name leaves"),
]


@pytest.mark.parametrize(("files", "options", "message"), REFUSED)
def test_refusals_name_the_nearest(
    tmp_path: Path, files: dict[str, str], options: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(CatalogError, match=message):
        load_adapter("coco").discover(tmp_path, options)


def test_other_json_files_do_not_stop_a_dataset(tmp_path: Path, ingest_into: Ingest) -> None:
    write(tmp_path / "train.json", ["a.jpg"])
    (tmp_path / "results.json").write_text("[]")
    (tmp_path / "info.json").write_text('{"version": 1}')
    assert counts_found(ingest_into(tmp_path, "coco", images=False))["boxes"] == 1
