"""JDE and FairMOT: labels with identities, as their scripts `gen_labels_*.py` write them."""

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


def write(root: Path, inside: str, label: str | None = "0 7 0.5 0.5 0.5 0.5\n") -> None:
    image = root / "images" / inside
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(image)
    text = (root / "labels_with_ids" / inside).with_suffix(".txt")
    text.parent.mkdir(parents=True, exist_ok=True)
    if label is not None:
        text.write_text(label)


def corners(table: Any) -> np.ndarray:
    return np.stack([table[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)


def test_unknown_people_other_classes_and_damaged_rows(tmp_path: Path, ingest_into: Any) -> None:
    write(
        tmp_path,
        "train/a.jpg",
        "0 -1 0.5 0.5 0.5 0.5\n\n0.0 1.000e+00 0.5 0.5 0.25 0.5\n1 3 0.5 0.5 0.1 0.1\n0 1 0.5 0.5 0.5\n"
        "0 2 20 30 10 10\n0 2 nan 0.5 0.1 0.1\n0 x 0.5 0.5 0.1 0.1\n0 4 0.5 0.5 0 0.1\n",
    )
    snapshot = ingest_into(tmp_path, "jde")
    assert snapshot.table("boxes")["person_id"].to_pylist() == [None, "1"]
    np.testing.assert_allclose(corners(snapshot.table("boxes")), [[16, 12, 48, 36], [24, 12, 40, 36]])
    rejects = {(r["source_row"], r["code"]) for r in snapshot.table("rejects").to_pylist()}
    assert rejects == {
        (4, "not_a_person"), (5, "row_unreadable"), (6, "row_unreadable"), (7, "row_unreadable"),
        (8, "row_unreadable"), (9, "box_empty"),
    }  # fmt: skip
    details = snapshot.table("rejects")["detail"].to_pylist()
    assert any("in pixels" in detail for detail in details)


def test_sequences_splits_and_their_identities(tmp_path: Path, ingest_into: Any) -> None:
    for sequence in ("MOT17-02-SDP", "MOT17-04-SDP"):
        write(tmp_path, f"train/{sequence}/img1/000012.jpg")
    write(tmp_path, "val/a.png")
    write(tmp_path, "val/b.png", None)
    snapshot = ingest_into(tmp_path, "jde")
    images = {row["image_id"]: row for row in snapshot.table("images").to_pylist()}
    assert {name: row["split"] for name, row in images.items()} == {
        "train/MOT17-02-SDP/img1/000012.jpg": "train",
        "train/MOT17-04-SDP/img1/000012.jpg": "train",
        "val/a.png": "val",
        "val/b.png": "val",
    }
    frame = images["train/MOT17-02-SDP/img1/000012.jpg"]
    assert (frame["sequence_id"], frame["frame_index"]) == ("train/MOT17-02-SDP", 12)
    assert set(snapshot.table("boxes")["person_id"].to_pylist()) == {"7"}
    own = ingest_into(tmp_path, "jde", identities="sequence").table("boxes")
    assert set(own["person_id"].to_pylist()) == {"train/MOT17-02-SDP/7", "train/MOT17-04-SDP/7", "val/7"}
    assert set(own["person_scope"].to_pylist()) == {"sequence"}


def test_a_folder_without_any_label_is_not_empty_but_unlabelled(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, "train/s1/img1/000001.jpg")
    write(tmp_path, "train/s1/img1/000002.jpg", None)
    write(tmp_path, "test/s2/img1/000001.jpg", None)
    assert set(ingest_into(tmp_path, "jde").table("images")["split"].to_pylist()) == {"train"}
    layout = load_adapter("jde").discover(tmp_path, {})
    assert layout.notes == (
        "images/test/s2/img1 has no label file: its images are not read",
        "1 of 2 images have no label file: they count as images without people",
    )


def test_lists_of_fairmot_are_the_splits(tmp_path: Path, ingest_into: Any) -> None:
    root = tmp_path / "Caltech"
    for name in ("a", "b", "c"):
        write(root, f"{name}.jpg")
    (root / "caltech.train").write_text("Caltech/images/a.jpg\nCaltech/images/lost.jpg\n")
    (root / "caltech.val").write_text("./images/b.jpg\r\n")
    snapshot = ingest_into(root, "jde")
    found = {row["image_id"]: row["split"] for row in snapshot.table("images").to_pylist()}
    assert found == {"a.jpg": "train", "b.jpg": "val"}  # c is in no list
    (reject,) = snapshot.table("rejects").to_pylist()
    assert (reject["code"], reject["source_file"], reject["source_row"]) == (
        "entry_unknown",
        "caltech.train",
        2,
    )
    (root / "caltech.val").write_text("images/a.jpg\n")
    with pytest.raises(CatalogError, match="in two splits"):
        load_adapter("jde").discover(root, {})


def test_a_label_file_without_an_image_is_a_reject(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, "train/a.jpg")
    (tmp_path / "labels_with_ids" / "train" / "gone.txt").write_text("0 1 0.5 0.5 0.1 0.1\n")
    (tmp_path / "labels_with_ids" / "classes.txt").write_text("person\n")
    (reject,) = ingest_into(tmp_path, "jde").table("rejects").to_pylist()
    assert (reject["code"], reject["source_file"]) == ("image_missing", "labels_with_ids/train/gone.txt")


def test_refusals_name_the_layouts_and_what_is_near(tmp_path: Path) -> None:
    adapter = load_adapter("jde")
    write(tmp_path / "Caltech", "a.jpg")
    with pytest.raises(CatalogError, match=r"labels_with_ids/.*a dataset of this kind in Caltech"):
        adapter.discover(tmp_path, {})
    yolo = tmp_path / "yolo"
    (yolo / "labels").mkdir(parents=True)
    (yolo / "images").mkdir()
    Image.new("RGB", (4, 4)).save(yolo / "images" / "a.jpg")
    (yolo / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    with pytest.raises(CatalogError, match="adapter yolo"):
        adapter.discover(yolo, {})
    for option, value in (("identities", "all"), ("classes", "person"), ("images", "../up")):
        with pytest.raises(CatalogError, match=f"option {option}="):
            adapter.discover(tmp_path / "Caltech", {option: value})


def test_sizes_are_the_images(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, "a.jpg")
    with pytest.raises(CatalogError, match="sizes from the images"):
        ingest_into(tmp_path, "jde", images=False)


fraction = st.floats(0.05, 0.4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(-1, 9), fraction, fraction, fraction, fraction), min_size=1, max_size=6)
)
def test_what_is_written_is_read(
    tmp_path: Path, people: list[tuple[int, float, float, float, float]]
) -> None:
    lines = [f"0 {p} {x:.6f} {y:.6f} {w:.6f} {h:.6f}" for p, x, y, w, h in people]
    write(tmp_path, "a.png", "\n".join(lines))
    adapter = load_adapter("jde")
    (unit,) = adapter.discover(tmp_path, {}).units
    (rows,) = adapter.read(tmp_path, unit, {})
    boxes = rows.tables().boxes
    assert boxes["person_id"].to_pylist() == [None if p < 0 else str(p) for p, *_ in people]
    found = corners(boxes) / np.array([WIDTH, HEIGHT] * 2)
    back = np.concatenate([(found[:, :2] + found[:, 2:]) / 2, found[:, 2:] - found[:, :2]], axis=1)
    np.testing.assert_allclose(back, np.array([box for _, *box in people]), atol=1e-5)
