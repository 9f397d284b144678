"""Inputs from the field that COCO, CrowdHuman and WIDER Pedestrian have to read right, and their kinds."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError
from data_catalog.ingest import counts_found
from data_catalog.validation import check_snapshot

Ingest = Callable[..., Any]
PERSON = [{"id": 1, "name": "person"}]


def picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (shade, shade, 9)).save(path)


def box(number: Any = 1, image: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": 1, "bbox": [10, 8, 12, 30], "iscrowd": 0, **more}


def write(
    path: Path,
    names: Iterable[str],
    annotations: Iterable[Mapping[str, Any]] | None = None,
    *,
    images: Iterable[Mapping[str, Any]] | None = None,
    categories: Any = PERSON,
) -> None:
    """A COCO file of images with these names and one box each, unless told otherwise."""
    listed = list(images or ({"id": n, "file_name": name} for n, name in enumerate(names, start=1)))
    rows = list(annotations) if annotations is not None else [box(n, n) for n in range(1, len(listed) + 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": listed, "annotations": rows, "categories": categories}))


def column(snapshot: Any, table: str, name: str) -> list[Any]:
    return list(snapshot.table(table)[name].to_pylist())


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


IDS: list[Callable[[int], Any]] = [
    int,
    float,
    str,
    lambda n: f"{n}.0",
    lambda n: f" {n} ",
    lambda n: f"{n:06d}",
    lambda n: f"scene-{n}",
    lambda n: f"{n:032x}e{n}",
    lambda n: n if n % 2 else str(n),
    lambda n: n if n % 2 else float(n),
]


@pytest.mark.parametrize("of_image", IDS)
def test_ids_are_read_however_they_are_written(
    tmp_path: Path, ingest_into: Ingest, of_image: Callable[[int], Any]
) -> None:
    images = [{"id": of_image(n), "file_name": f"{n}.jpg"} for n in range(1, 9)]
    rows = [box(of_image(n + 40), of_image(n), category_id=of_image(n % 2)) for n in range(1, 9)]
    kinds = [{"id": of_image(0), "name": "car"}, {"id": of_image(1), "name": "person"}]
    write(tmp_path / "train.json", [], rows, images=images, categories=kinds)
    snapshot = ingest_into(tmp_path, "coco", images=False)
    assert column(snapshot, "boxes", "image_id") == ["1.jpg", "3.jpg", "5.jpg", "7.jpg"]
    assert set(column(snapshot, "rejects", "code")) == {"not_a_person"}


@pytest.mark.parametrize(
    "written",
    [
        ["10", "8", "12", "30"],
        ["10.0", " 8", "1.2e1", 30],
        [10.0, 8, 12, 30.0],
        "[10, 8, 12, 30]",
        "10 8 12 30",
        "10.0;8;12;30",
    ],
)
def test_boxes_are_read_however_they_are_written(tmp_path: Path, ingest_into: Ingest, written: Any) -> None:
    write(tmp_path / "train.json", ["a.jpg"], [box(bbox=written), box(2)])
    boxes = ingest_into(tmp_path, "coco", images=False).table("boxes")
    assert [boxes[name].to_pylist() for name in ("x1", "y1", "x2", "y2")] == [
        [10] * 2,
        [8] * 2,
        [22] * 2,
        [38] * 2,
    ]


@pytest.mark.parametrize("written", [["a", 8, 12, 30], [1, 2, 3], "1,2,3", ["nan", 1, 2, 3], None, {"x": 1}])
def test_boxes_that_are_none_are_rejects(tmp_path: Path, ingest_into: Ingest, written: Any) -> None:
    write(tmp_path / "train.json", ["a.jpg"], [box(bbox=written), box(2)])
    snapshot = ingest_into(tmp_path, "coco", images=False)
    assert column(snapshot, "rejects", "code") == ["row_unreadable"]
    assert column(snapshot, "rejects", "detail")[0].startswith("bbox: ")


@pytest.mark.parametrize(
    ("crowd", "ignore", "reason"),
    [
        (0, 1, "ignore"),
        (0, True, "ignore"),
        (0, "1", "ignore"),
        (0, 1.0, "ignore"),
        (False, "true", "ignore"),
        (1, 1, "crowd"),
        ("1", 0, "crowd"),
        (None, "0", None),
        (0, None, None),
        (0, float("nan"), None),
    ],
)
def test_what_makes_an_ignore_region(
    tmp_path: Path, ingest_into: Ingest, crowd: Any, ignore: Any, reason: str | None
) -> None:
    write(tmp_path / "train.json", ["a.jpg"], [box(iscrowd=crowd, ignore=ignore, who=3)])
    snapshot = ingest_into(tmp_path, "coco", images=False, person_id="who")
    assert column(snapshot, "boxes", "ignore_reason") == [reason]
    assert column(snapshot, "boxes", "ignore") == [reason is not None]
    assert column(snapshot, "boxes", "person_id") == [None if reason else "3"]


@pytest.mark.parametrize("value", ["yes", [1], {}])
def test_a_flag_that_is_none_is_a_reject(tmp_path: Path, ingest_into: Ingest, value: Any) -> None:
    write(tmp_path / "train.json", ["a.jpg"], [box(ignore=value), box(2)])
    assert column(ingest_into(tmp_path, "coco", images=False), "rejects", "source_row") == [1]


def test_nested_keys_of_images_and_of_boxes(tmp_path: Path, ingest_into: Ingest) -> None:
    images = [
        {"id": 1, "file_name": "a.jpg", "meta": {"video": {"name": "v1"}, "cam": "2"}},
        {"id": 2, "file_name": "b.jpg", "meta": {"video": {"name": "v2"}, "cam": 3.0}, "extra": [1]},
        {"id": 3, "file_name": "c.jpg", "meta": None},
    ]
    rows = [
        box(1, 1, attributes={"track_id": 7, "occluded": False}),
        box(2, 2, attributes={"track_id": "7.0"}),
        box(3, 2, attributes=[]),
        box(4, 1, attributes={"track_id": -1}),
        box(5, 1, **{"attributes.track_id": 9}),
    ]
    write(tmp_path / "train.json", [], rows, images=images)
    options = {"track_id": "attributes.track_id", "sequence_id": "meta.video.name", "camera_id": "meta.cam"}
    snapshot = ingest_into(tmp_path, "coco", images=False, **options)
    assert column(snapshot, "images", "sequence_id") == ["v1", "v2", None]
    assert column(snapshot, "images", "camera_id") == [2, 3, None]
    assert column(snapshot, "boxes", "person_id") == ["v1/7", "v2/7", None, None, "v1/9"]
    with pytest.raises(CatalogError, match=r"none of its 5 annotations has a 'attributes\.track'"):
        ingest_into(tmp_path, "coco", images=False, person_id="attributes.track")
    with pytest.raises(CatalogError, match=r"none of its 3 images has a 'meta\.camera'"):
        ingest_into(tmp_path, "coco", images=False, camera_id="meta.camera")


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


def test_ids_twice_are_said(tmp_path: Path, ingest_into: Ingest) -> None:
    images = [{"id": n % 3, "file_name": f"{n}.jpg"} for n in range(8)]
    write(tmp_path / "train.json", [], images=images)
    with pytest.raises(CatalogError, match=r"the id of an earlier image.* 0 \(0\.jpg and 3\.jpg\).*, \.\.\."):
        ingest_into(tmp_path, "coco", images=False)
    both = [*PERSON, {"id": "1", "name": "car"}]
    write(tmp_path / "train.json", ["a.jpg"], categories=both)
    with pytest.raises(CatalogError, match="'person' and 'car' have one id: 1"):
        ingest_into(tmp_path, "coco", images=False)


def test_annotation_ids_twice_are_a_finding(tmp_path: Path, ingest_into: Ingest) -> None:
    write(tmp_path / "train.json", ["a@2.jpg"], [box(7), box(7), box(8), box("x@3"), box("7")])
    found = {each.code: each for each in check_snapshot(ingest_into(tmp_path, "coco", images=False))}
    assert found["annotation_id_twice"].count == 2
    assert "a@2.jpg#7@2, a@2.jpg#7@5" in found["annotation_id_twice"].message


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
