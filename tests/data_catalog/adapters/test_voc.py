"""Pascal VOC XML in the layouts of PASCAL, LabelImg, Roboflow and CVAT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError

WIDTH, HEIGHT = 64, 48
PERSON = "<name>person</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"


def xml(*objects: str, filename: str = "a.jpg", size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    inner = "".join(f"<object>{each}</object>" for each in objects)
    return (
        f"<annotation><folder>x</folder><filename>{filename}</filename><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height><depth>3</depth></size><segmented>0</segmented>{inner}</annotation>"
    )


def put(root: Path, path: str, text: str | None = None) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        Image.new("RGB", (WIDTH, HEIGHT)).save(file)
    else:
        file.write_text(text)


def corners(table: Any) -> list[list[float]]:
    return np.stack([table[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1).tolist()


def splits(snapshot: Any) -> dict[str, str]:
    return {row["image_id"]: row["split"] for row in snapshot.table("images").to_pylist()}


def test_pascal(tmp_path: Path, ingest_into: Any) -> None:
    for name in ("2008_000001", "2008_000002", "2008_000003"):
        put(tmp_path, f"JPEGImages/{name}.jpg")
        put(tmp_path, f"Annotations/{name}.xml", xml(PERSON, filename=f"{name}.jpg"))
    put(tmp_path, "ImageSets/Main/train.txt", "2008_000001\n2008_000009\n")
    put(tmp_path, "ImageSets/Main/val.txt", "2008_000002\r\n")
    put(tmp_path, "ImageSets/Main/trainval.txt", "2008_000001\n2008_000002\n")
    put(tmp_path, "ImageSets/Main/person_train.txt", "2008_000001  1\n")
    snapshot = ingest_into(tmp_path, "voc")
    assert splits(snapshot) == {"JPEGImages/2008_000001.jpg": "train", "JPEGImages/2008_000002.jpg": "val"}
    assert corners(snapshot.table("boxes")) == [[10, 5, 30, 40]] * 2  # 1-based and inclusive
    (reject,) = snapshot.table("rejects").to_pylist()
    assert (reject["code"], reject["source_row"]) == ("entry_unknown", 2)
    assert "'2008_000009'" in reject["detail"]


def test_objects(tmp_path: Path, ingest_into: Any) -> None:
    head = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"
    part = f"<part><name>head</name>{head}</part>"
    put(tmp_path, "a.jpg")
    put(
        tmp_path,
        "a.xml",
        xml(
            part + PERSON.replace("11", "11.5"),
            f"<difficult>1</difficult>{PERSON.replace('person', 'Pedestrian')}",
            PERSON.replace("person", "car"),
            "<name>person</name>",
            PERSON.replace("<xmin>11</xmin>", ""),
            PERSON.replace("11", "eleven"),
            PERSON.replace("<xmax>30", "<xmax>5"),
        ),
    )
    snapshot = ingest_into(tmp_path, "voc")
    boxes = snapshot.table("boxes").to_pylist()
    assert [(b["x1"], b["ignore"], b["ignore_reason"], b["source_row"]) for b in boxes] == [
        (10.5, False, None, 1),
        (10, True, "difficult", 2),
    ]
    rejects = {(r["source_row"], r["severity"], r["code"]) for r in snapshot.table("rejects").to_pylist()}
    assert rejects == {
        (3, "excluded", "not_a_person"), (4, "invalid", "row_unreadable"), (5, "invalid", "row_unreadable"),
        (6, "invalid", "row_unreadable"), (7, "invalid", "box_empty"),
    }  # fmt: skip
    assert len(ingest_into(tmp_path, "voc", categories="CAR").table("boxes")) == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train/a.jpg", "train/a.xml", "valid/a.jpg", "valid/a.xml", "test/b.jpg", "test/b.xml"],  # Roboflow
         {"train/a.jpg": "train", "valid/a.jpg": "val", "test/b.jpg": "test"}),
        (["a.jpg", "a.xml"], {"a.jpg": "train"}),  # LabelImg
        (["set/images/a.png", "set/annotations/a.xml"], {"set/images/a.png": "train"}),
        (["images/a.png", "annotations/a.xml", "classes.txt"], {"images/a.png": "train"}),
        (["Annotations/cam1/a.xml", "JPEGImages/cam1/a.jpg", "Annotations/cam2/a.xml",
          "JPEGImages/cam2/a.jpg", "ImageSets/Main/default.txt"],  # CVAT
         {"JPEGImages/cam1/a.jpg": "train", "JPEGImages/cam2/a.jpg": "train"}),
        (["train/Annotations/a.xml", "train/JPEGImages/a.jpg", "holdout/a.XML", "holdout/a.JPG"],
         {"train/JPEGImages/a.jpg": "train", "holdout/a.JPG": "holdout"}),
    ],
)  # fmt: skip
def test_layouts(tmp_path: Path, ingest_into: Any, files: list[str], expected: dict[str, str]) -> None:
    root = tmp_path / "root"
    for path in files:
        text = "cam1/a\ncam2/a\n" if path.endswith(".txt") else None
        put(root, path, xml(PERSON) if path.lower().endswith(".xml") else text)
    snapshot = ingest_into(root, "voc")
    assert splits(snapshot) == expected
    assert len(snapshot.table("boxes")) == len(expected)
    assert len(snapshot.table("rejects")) == 0


def test_an_image_is_also_found_by_the_name_in_the_file(tmp_path: Path, ingest_into: Any) -> None:
    put(tmp_path, "images/frame 1.png")
    put(tmp_path, "annotations/0001.xml", xml(PERSON, filename="C:\\data\\frame 1.png"))
    put(tmp_path, "annotations/0002.xml", xml(PERSON, filename="gone.png"))
    put(tmp_path, "annotations/0003.xml", "<annotation><object>")
    snapshot = ingest_into(tmp_path, "voc")
    assert splits(snapshot) == {"images/frame 1.png": "train"}
    rejects = {r["source_file"]: (r["code"], r["detail"]) for r in snapshot.table("rejects").to_pylist()}
    assert rejects["annotations/0002.xml"] == ("image_missing", "its image 'gone.png' is not there")
    code, detail = rejects["annotations/0003.xml"]
    assert code == "file_unreadable" and "line 1" in detail


def test_without_images(tmp_path: Path, ingest_into: Any) -> None:
    put(tmp_path, "Annotations/a.xml", xml(PERSON, filename="a.png"))
    put(tmp_path, "Annotations/b.xml", xml(size=(0, 0), filename=""))
    snapshot = ingest_into(tmp_path, "voc", images=False)
    images = {row["rel_path"]: row["width"] for row in snapshot.table("images").to_pylist()}
    assert images == {"JPEGImages/a.png": WIDTH, "JPEGImages/b.jpg": None}
    with pytest.raises(CatalogError, match=r"a\.png"):
        ingest_into(tmp_path, "voc")


def test_corners_counted_from_0(tmp_path: Path, ingest_into: Any) -> None:
    put(tmp_path, "a.jpg")
    put(tmp_path, "a.xml", xml(PERSON))
    assert corners(ingest_into(tmp_path, "voc", first_pixel="0").table("boxes")) == [[11, 6, 30, 40]]
    adapter = load_adapter("voc")
    assert adapter.discover(tmp_path, {}).notes == ()
    put(tmp_path, "a.xml", xml(PERSON.replace("11", "0.0")))
    assert "first_pixel=0" in adapter.discover(tmp_path, {}).notes[0]
    assert adapter.discover(tmp_path, {"first_pixel": "1"}).notes == ()


@pytest.mark.parametrize(
    ("extra", "key", "found"),
    [
        ("<attributes><attribute><name>track_id</name><value>3</value></attribute></attributes>",
         "attributes.track_id", "3"),
        ("<trackid>0</trackid>", "trackid", "0"),
        ("<trackid>-1</trackid>", "trackid", None),
        ("", "trackid", None),
    ],
)  # fmt: skip
def test_identities(tmp_path: Path, ingest_into: Any, extra: str, key: str, found: str | None) -> None:
    put(tmp_path, "seq1/a.jpg")
    put(tmp_path, "seq1/a.xml", xml(PERSON + extra))
    boxes = ingest_into(tmp_path, "voc", person_id=key).table("boxes")
    assert boxes["person_id"].to_pylist() == [found]
    boxes = ingest_into(tmp_path, "voc", track_id=key).table("boxes")
    assert boxes["person_id"].to_pylist() == [f"seq1/{found}" if found else None]


def test_refusals_name_the_layouts_and_what_is_near(tmp_path: Path) -> None:
    adapter = load_adapter("voc")
    put(tmp_path, "cvat/annotations.xml", "<annotations><version>1.1</version></annotations>")
    with pytest.raises(CatalogError, match=r"JPEGImages/.*adapter cvat"):
        adapter.discover(tmp_path / "cvat", {})
    put(tmp_path, "none/a.json", "{}")
    with pytest.raises(CatalogError, match=r"looked for .* Nearest found: files of \.json \(1\)"):
        adapter.discover(tmp_path / "none", {})
    put(tmp_path, "apart/xml/a.xml", xml(PERSON))
    put(tmp_path, "apart/photos/a.jpg")
    with pytest.raises(CatalogError, match="--option images=FOLDER"):
        adapter.discover(tmp_path / "apart", {})
    assert adapter.discover(tmp_path / "apart", {"images": "photos"}).units[0].images == ("photos/a.jpg",)
    put(tmp_path, "two/a.xml", xml(PERSON))
    put(tmp_path, "two/Annotations/a.xml", xml(PERSON))
    put(tmp_path, "two/a.jpg")
    with pytest.raises(CatalogError, match=r"both of the image a\.jpg"):
        adapter.discover(tmp_path / "two", {})


coordinate = st.integers(1, 30)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate, st.booleans()), max_size=5))
def test_what_is_written_is_read(tmp_path: Path, people: list[tuple[int, int, int, int, bool]]) -> None:
    objects = [
        f"<name>person</name><difficult>{d:d}</difficult><bndbox><ymin>{y}</ymin><xmin>{x}</xmin>"
        f"<xmax>{x + w - 1}</xmax><ymax>{y + h - 1}</ymax></bndbox>"
        for x, y, w, h, d in people
    ]
    put(tmp_path, "a.jpg")
    put(tmp_path, "a.xml", xml(*objects))
    adapter = load_adapter("voc")
    (rows,) = adapter.read(tmp_path, adapter.discover(tmp_path, {}).units[0], {})
    boxes = rows.tables().boxes
    assert corners(boxes) == [[x - 1, y - 1, x - 1 + w, y - 1 + h] for x, y, w, h, _ in people]
    assert boxes["ignore"].to_pylist() == [d for *_, d in people]
