"""An ingest that takes what did not change from an earlier snapshot gives what reading everything gives."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from data_catalog.adapters import Layout, Unit, load_adapter
from data_catalog.errors import CatalogError
from data_catalog.hash_cache import HashCache
from data_catalog.ingest import DatasetRoot, fingerprint, ingest
from data_catalog.schema import TABLES
from data_catalog.snapshot import Snapshot
from data_catalog.synthetic import (
    write_cuhk_sysu,
    write_mot17,
    write_prw,
    write_wider_pedestrian,
)
from tests.data_catalog.changing_roots import (
    CUHK,
    MOT,
    MOT_TRUTH,
    PRW,
    WIDER,
    Change,
    add_image,
    append,
    both,
    citypersons,
    coco,
    crowd_line,
    cvat,
    drop_frame,
    first,
    no_image,
    other_boxes,
    other_pixels,
    posetrack,
    remove,
    text,
    voc,
    write_citypersons,
    write_coco,
    write_coco_splits,
    write_crowdhuman,
    write_cvat,
    write_jde,
    write_market,
    write_mot15,
    write_posetrack,
    write_short_mot17,
    write_voc,
    write_yolo,
)

CASES: dict[str, tuple[str, Change, tuple[bool, ...], list[Change]]] = {
    "prw": (
        "prw",
        lambda root: write_prw(root, PRW, seed=3),
        (True, False),
        [
            first("annotations/*.mat", other_boxes),
            first("frames/*", other_pixels),
            first("frames/*", no_image),
            append("query_info.txt", "1 1 1 5 5 c9s9_000001\nnonsense\n"),
            drop_frame,
        ],
    ),
    "mot17": (
        "mot17",
        lambda root: write_mot17(root, MOT, seed=3),
        (True, False),
        [
            first(MOT_TRUTH, lambda path: path.write_text(path.read_text() + "1,9,10,10,20,50,1,1,1\n")),
            first("train/*/seqinfo.ini", lambda path: path.write_text(path.read_text() + "imExt=.png\n")),
            first("train/*", shutil.rmtree),
        ],
    ),
    "mot17-lacking-files": (
        "mot17",
        write_short_mot17,
        (False,),
        [
            first(MOT_TRUTH, lambda path: path.write_text(path.read_text() + "2,9,1,1,2,5,1,1,1\n")),
            first("train/*/img1/000001.jpg", Path.unlink),
        ],
    ),
    "mot15": (
        "mot15",
        write_mot15,
        (True, False),
        [append("train/A/gt/gt.txt", "1,2,3,3,9,9,1,0,0,0\nx\n"), remove("train/B/gt/gt.txt")],
    ),
    "cuhk-sysu": (
        "cuhk-sysu",
        lambda root: write_cuhk_sysu(root, CUHK, seed=2),
        (True, False),
        [
            remove("annotation/test/train_test/TestG3.mat"),
            first("Image/SSM/*", other_pixels),
            remove("annotation/Person.mat"),
            both(*(remove(f"annotation/{name}.mat") for name in ("Images", "pool", "test/train_test/Train"))),
        ],
    ),
    "wider-pedestrian": (
        "wider-pedestrian",
        lambda root: write_wider_pedestrian(root, WIDER, seed=2),
        (True, False),
        [
            first("val_annotations.txt", lambda path: path.write_text("".join(path.open().readlines()[1:]))),
            first("Images/train/*", other_pixels),
            first("Images/train/*", no_image),
            remove("pedestrian_ignore_part_train.txt"),
        ],
    ),
    "coco": (
        "coco",
        write_coco,
        (True, False),
        [
            lambda root: coco(root, "val.json", ["c.jpg", "d.jpg"], 4),
            add_image("images/a.jpg"),
            lambda root: no_image(root / "images" / "b.jpg"),
            add_image("images/b.jpg"),
            remove("train.json"),
            lambda root: coco(root, "more_train.json", ["e.jpg"], 4),
        ],
    ),
    "coco with names of one kind": (
        "coco",
        write_coco_splits,
        (True, False),
        [
            lambda root: coco(root, "val/labels.json", ["b.jpg", "é.jpg"], 4, "val"),
            lambda root: (root / "val" / "é.jpg").rename(root / "val" / "e\u0301.jpg"),
            both(
                lambda root: (root / "test").mkdir(),
                lambda root: coco(root, "test/labels.json", ["a.jpg"], 1, "test"),
            ),
            remove("val/labels.json"),
        ],
    ),
    "crowdhuman": (
        "crowdhuman",
        write_crowdhuman,
        (True, False),
        [
            both(append("annotation_val.odgt", crowd_line("d", 3)), add_image("Images/d.jpg")),
            add_image("Images/a.jpg"),
            append("annotation_train.odgt", "no json\n"),
            remove("annotation_val.odgt"),
        ],
    ),
    "yolo": (
        "yolo",
        write_yolo,
        (True,),
        [
            add_image("images/train/new_bare.jpg"),
            append("labels/val/val_labelled.txt", "0 .2 .2 .1 .1\n"),
            remove("labels/train/train_labelled.txt"),
            remove("images/val/val_bare.jpg"),
        ],
    ),
    "jde": (
        "jde",
        write_jde,
        (True,),
        [
            append("labels_with_ids/val/b.txt", "0 9 .2 .2 .1 .1\n"),
            both(add_image("images/train/c.jpg"), text("labels_with_ids/train/c.txt", "0 -1 .5 .5 .5 .5\n")),
            add_image("images/train/a.jpg"),
            both(remove("images/val/b.jpg"), remove("labels_with_ids/val/b.txt")),
        ],
    ),
    "posetrack18": (
        "posetrack18",
        write_posetrack,
        (True, False),
        [
            lambda root: posetrack(root, "s1", 3),
            add_image("images/train/s2/000000.jpg"),
            remove("annotations/train/s2.json"),
        ],
    ),
    "voc": (
        "voc",
        write_voc,
        (True, False),
        [
            text("Annotations/a.xml", voc("a.jpg", 20)),
            both(add_image("JPEGImages/c.jpg"), text("Annotations/c.xml", voc("c.jpg", 9))),
            add_image("JPEGImages/b.jpg"),
            both(remove("JPEGImages/a.jpg"), remove("Annotations/a.xml")),
        ],
    ),
    "cvat": (
        "cvat",
        write_cvat,
        (True, False),
        [
            text("one/annotations.xml", cvat("a.jpg", 20)),
            add_image("two/images/b.jpg"),
            remove("one/annotations.xml"),
        ],
    ),
    "citypersons": (
        "citypersons",
        write_citypersons,
        (True, False),
        [
            lambda root: citypersons(root, "val", 3),
            add_image("leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"),
            remove("anno_val.mat"),
        ],
    ),
    "market1501": (
        "market1501",
        write_market,
        (True,),
        [
            add_image("bounding_box_train/0003_c1s1_000002_01.jpg"),
            add_image("bounding_box_test/nobody.jpg"),
            remove("bounding_box_test/0005_c1s1_000003_01.jpg"),
            add_image("query/0007_c2s1_000009_01.jpg"),
        ],
    ),
}


@pytest.mark.parametrize(
    ("case", "images"),
    [(case, images) for case, (_, _, uses, _) in CASES.items() for images in uses],
    ids=[f"{case}-{'images' if use else 'blind'}" for case, each in CASES.items() for use in each[2]],
)
def test_a_change_alone_is_read_and_the_rows_are_those_of_a_fresh_ingest(
    tmp_path: Path, case: str, images: bool
) -> None:
    adapter_name, build, _, changes = CASES[case]
    root, adapter = tmp_path / "root", load_adapter(adapter_name)
    root.mkdir()
    build(root)
    made: Snapshot | None = None
    for number, change in enumerate((lambda root: None, *changes)):
        change(root)
        found = fingerprint(DatasetRoot(root, adapter, read_images=images), HashCache(None))
        again, fresh = tmp_path / f"again-{number}", tmp_path / f"fresh-{number}"
        ingest(
            DatasetRoot(root, adapter, read_images=images),
            again,
            found,
            name="x",
            allow_empty=True,
            previous=made,
        )
        ingest(DatasetRoot(root, adapter, read_images=images), fresh, found, name="x", allow_empty=True)
        made = Snapshot(again)
        for name in TABLES:
            assert made.table(name).to_pylist() == Snapshot(fresh).table(name).to_pylist(), (number, name)
        assert (again / "units.parquet").read_bytes() == (fresh / "units.parquet").read_bytes()


def test_every_adapter_is_tried() -> None:
    from data_catalog.adapters import adapter_names

    ours = {
        name for name in adapter_names() if type(load_adapter(name)).__module__.startswith("data_catalog.")
    }
    assert {adapter for adapter, *_ in CASES.values()} == ours


@pytest.mark.parametrize(
    ("build", "adapter_name", "change", "read_again"),
    [
        (write_coco, "coco", lambda root: coco(root, "val.json", ["c.jpg"], 1), "val.json"),
        (write_coco, "coco", add_image("images/a.jpg"), "train.json"),
        (write_crowdhuman, "crowdhuman", add_image("Images/c.jpg"), "annotation_val.odgt"),
        (write_market, "market1501", add_image("query/0007_c2s1_000009_01.jpg"), "query"),
    ],
    ids=["coco-annotations", "coco-image", "crowdhuman-image", "market-image"],
)
def test_of_several_units_the_changed_one_is_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    build: Change,
    adapter_name: str,
    change: Change,
    read_again: str,
) -> None:
    root, adapter, work = tmp_path / "root", load_adapter(adapter_name), tmp_path / "first"
    root.mkdir()
    build(root)
    ingest(
        DatasetRoot(root, adapter), work, fingerprint(DatasetRoot(root, adapter), HashCache(None)), name="x"
    )
    change(root)
    opened: list[str] = []
    read = type(adapter).read

    def watched(self: Any, root: Path, unit: Any, options: Any) -> Any:
        opened.append(unit.source)
        return read(self, root, unit, options)

    monkeypatch.setattr(type(adapter), "read", watched)
    found = fingerprint(DatasetRoot(root, adapter), HashCache(None))
    ingest(DatasetRoot(root, adapter), tmp_path / "again", found, name="x", previous=Snapshot(work))
    assert opened == [read_again]


def test_two_units_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = load_adapter("yolo")
    units = (Unit("images", "train", has_file=False), Unit("images", "val", has_file=False))
    monkeypatch.setattr(type(adapter), "discover", lambda self, root, options: Layout(units))
    with pytest.raises(CatalogError, match="two units have the source images"):
        fingerprint(DatasetRoot(tmp_path, adapter), HashCache(None))


def test_a_lost_query_names_its_file_and_row(tmp_path: Path, ingest_into: Any) -> None:
    write_prw(tmp_path / "prw", PRW, seed=3)
    append("query_info.txt", "1 1 1 5 5 c9s9_000001\n")(tmp_path / "prw")
    rejects = ingest_into(tmp_path / "prw", "prw").table("rejects").to_pylist()
    lines = (tmp_path / "prw" / "query_info.txt").read_text().splitlines()
    assert [(each["code"], each["source_file"], each["source_row"]) for each in rejects] == [
        ("query_image_unknown", "query_info.txt", len(lines))
    ]
