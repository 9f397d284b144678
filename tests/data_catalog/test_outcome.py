"""What an ingest must not pass over: empty outcomes, files left over, sizes that disagree, boxes outside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_catalog.errors import CatalogError
from data_catalog.snapshot import Snapshot, counts_found
from data_catalog.validation import check_snapshot

PERSON = [{"id": 1, "name": "person"}]


def write_coco(root: Path, boxes: list[list[float]], split: str = "train", **image: Any) -> None:
    """One image of 64x48 pixels with these boxes; `image` are further fields of its entry."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    name = f"{split}.jpg"
    Image.new("RGB", (64, 48)).save(root / "images" / name)
    rows = [{"id": n, "image_id": 1, "category_id": 1, "bbox": box} for n, box in enumerate(boxes, start=1)]
    value = {"images": [{"id": 1, "file_name": name, **image}], "annotations": rows, "categories": PERSON}
    (root / f"instances_{split}.json").write_text(json.dumps(value))


def codes(snapshot: Snapshot) -> dict[str, str]:
    return {finding.code: finding.message for finding in check_snapshot(snapshot)}


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([], "split 'train' has 1 images and no box of a person"),
        ([[1, 1, 9, 9], [1, 1, -9, 9], [9, 9, 0, 0]], "2 of the 3 rows of split 'train' are damaged"),
        (
            [[70, 1, 9, 9]],
            "1 of the 1 rows of split 'train' are damaged, such as instances_train.json, row 1",
        ),
    ],
)
def test_a_nearly_empty_split_is_an_error(
    boxes: list[list[float]], message: str, tmp_path: Path, ingest_into: Any
) -> None:
    write_coco(tmp_path, boxes)
    with pytest.raises(CatalogError, match=f"{message}.*--allow-empty"):
        ingest_into(tmp_path, "coco", allow_empty=False)
    assert message in codes(ingest_into(tmp_path, "coco"))["outcome"]


def test_as_many_damaged_rows_as_sound_ones_are_a_finding(tmp_path: Path, ingest_into: Any) -> None:
    write_coco(tmp_path, [[1, 1, 9, 9], [1, 1, -9, 9]])
    snapshot = ingest_into(tmp_path, "coco", allow_empty=False)
    assert counts_found(snapshot)["boxes"] == 1 and "damaged_rows" in codes(snapshot)


@pytest.mark.parametrize(("empty", "is_error"), [(0, False), (2, False), (4, True)])
def test_images_are_counted_among_images(
    tmp_path: Path, ingest_into: Any, empty: int, is_error: bool
) -> None:
    """Of seven images one shows people: a few that cannot be read are not most of the split."""
    names = [f"{number}.jpg" for number in range(7)]
    for number, name in enumerate(names):
        Image.new("RGB", (64, 48)).save(tmp_path / name)
        if number and number <= empty:
            (tmp_path / name).write_bytes(b"")
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    rows = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9]}]
    value = {"images": images, "annotations": rows, "categories": PERSON}
    (tmp_path / "train.json").write_text(json.dumps(value))
    found = codes(ingest_into(tmp_path, "coco"))
    assert found.get("outcome", "").startswith("4 of the 7 images of split 'train'") == is_error
    assert ("outcome" in found) == is_error


def test_damage_is_of_the_split_of_its_image(tmp_path: Path, ingest_into: Any) -> None:
    """One XML file of CVAT may hold several subsets."""
    sound, empty = 'xtl="1" ytl="1" xbr="9" ybr="9"', 'xtl="9" ytl="9" xbr="9" ybr="9"'
    entries = []
    for subset, corners in (("train", [sound]), ("val", [sound, empty, empty])):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{subset}.jpg")
        boxes = "".join(f'<box label="person" {each}/>' for each in corners)
        entries.append(f'<image id="1" name="{subset}.jpg" subset="{subset}">{boxes}</image>')
    (tmp_path / "annotations.xml").write_text(f"<annotations>{''.join(entries)}</annotations>")
    assert "2 of the 3 rows of split 'val' are damaged" in codes(ingest_into(tmp_path, "cvat"))["outcome"]


def test_one_empty_split_beside_a_full_one_is_an_error(tmp_path: Path, ingest_into: Any) -> None:
    write_coco(tmp_path, [[1, 1, 9, 9]])
    write_coco(tmp_path, [], split="val")
    with pytest.raises(CatalogError, match="split 'val' has 1 images and no box"):
        ingest_into(tmp_path, "coco", allow_empty=False)


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ([-9, 5, 9.5, 9], True),
        ([-9, 5, 9, 9], False),
        ([63, 5, 9, 9], True),
        ([64, 5, 9, 9], False),
        ([5, 47.5, 9, 9], True),
        ([5, 48, 9, 9], False),
        ([5, -9, 9, 9], False),
        ([-100, -100, 500, 500], True),
    ],
)
def test_a_box_without_area_inside_its_image_is_a_reject(
    box: list[float], inside: bool, tmp_path: Path, ingest_into: Any
) -> None:
    write_coco(tmp_path, [[1, 1, 9, 9], [2, 2, 9, 9], box])
    snapshot = ingest_into(tmp_path, "coco")
    assert counts_found(snapshot)["boxes"] == 2 + inside
    rejects = snapshot.table("rejects").to_pylist()
    assert [row["code"] for row in rejects] == ([] if inside else ["box_outside"])
    if not inside:
        assert rejects[0]["source_row"] == 3 and "in an image of 64x48" in rejects[0]["detail"]


@pytest.mark.parametrize(
    ("box", "leaves"),
    [([0, 0, 64.0003, 48], False), ([-0.0003, 0, 9, 9], False), ([0, 9, 9, 40], True), ([-1, 0, 9, 9], True)],
)
def test_a_corner_that_was_rounded_does_not_leave_the_image(
    tmp_path: Path, ingest_into: Any, box: list[float], leaves: bool
) -> None:
    write_coco(tmp_path, [box])
    assert ("box_leaves_image" in codes(ingest_into(tmp_path, "coco"))) == leaves


def test_without_images_stated_sizes_tell_what_is_outside(tmp_path: Path, ingest_into: Any) -> None:
    write_coco(tmp_path, [[1, 1, 9, 9], [70, 5, 9, 9]], width=64, height=48)
    assert counts_found(ingest_into(tmp_path, "coco", images=False))["rejects"] == 1
    write_coco(tmp_path, [[1, 1, 9, 9], [70, 5, 9, 9]])
    assert counts_found(ingest_into(tmp_path, "coco", images=False))["rejects"] == 0


def test_stated_sizes_are_compared_with_the_files(tmp_path: Path, ingest_into: Any) -> None:
    write_coco(tmp_path, [[1, 1, 9, 9]], width=128, height=96)
    assert "train.jpg says 128x96, its file is 64x48" in codes(ingest_into(tmp_path, "coco"))["stated_size"]
    write_coco(tmp_path, [[1, 1, 9, 9]], width=64, height=48)
    assert "stated_size" not in codes(ingest_into(tmp_path, "coco"))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_an_annotation_of_the_unturned_image_is_told(
    orientation: int, tmp_path: Path, ingest_into: Any
) -> None:
    write_coco(tmp_path, [[1, 1, 9, 9]], width=64, height=48)
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "train.jpg", exif=tags)
    seen, ignoring = ingest_into(tmp_path, "coco"), ingest_into(tmp_path, "coco", exif="ignore")
    swapped = orientation in (6, 8)
    (image,) = seen.table("images").to_pylist()
    assert (image["width"], image["height"]) == ((48, 64) if swapped else (64, 48))
    assert image["decoding"] == f"orientation {orientation}"
    assert ("set the option exif=ignore" in codes(seen).get("exif_orientation", "")) == swapped
    (image,) = ignoring.table("images").to_pylist()
    assert (image["width"], image["height"]) == (64, 48) and "exif_orientation" not in codes(ignoring)
    assert image["decoding"] == f"orientation {orientation} ignored"
    with pytest.raises(CatalogError, match=r"option exif='no': choose apply or ignore"):
        ingest_into(tmp_path, "coco", exif="no")


def test_files_that_no_row_uses_are_told(prw_root: Path, ingest_into: Any) -> None:
    assert not {"image_left_over", "annotation_left_over"} & codes(ingest_into(prw_root, "prw")).keys()
    first = sorted((prw_root / "frames").iterdir())[0]
    (prw_root / "more").mkdir()
    for number in (1, 2):
        shutil.copy(first, prw_root / "more" / f"{number}.jpg")
    shutil.copy(sorted((prw_root / "annotations").iterdir())[0], prw_root / "more" / "forgotten.mat")
    (prw_root / "README.txt").write_text("about")
    found = codes(ingest_into(prw_root, "prw"))
    assert found["image_left_over"].startswith("2 image files") and "(2 in more)" in found["image_left_over"]
    assert "more/forgotten.mat" in found["annotation_left_over"]


def test_images_are_left_out_on_demand(tmp_path: Path, ingest_into: Any) -> None:
    write_coco(tmp_path, [[1, 1, 9, 9]])
    write_coco(tmp_path, [[1, 1, 9, 9]], split="val")
    (tmp_path / "images" / "val.jpg").write_bytes(b"damaged")
    snapshot = ingest_into(tmp_path, "coco", leave_out="images/v*.jpg, nothing.jpg")
    assert counts_found(snapshot)["images"] == 1
    rejects = snapshot.table("rejects", ["severity", "code"]).to_pylist()
    assert {tuple(row.values()) for row in rejects} == {
        ("excluded", "left_out"),
        ("excluded", "image_rejected"),
    }
    assert not {"damaged_rows", "image_left_over"} & codes(snapshot).keys()


def test_a_snapshot_of_before_is_read(prw_root: Path, ingest_into: Any) -> None:
    """Columns that an earlier version did not write are null."""
    import pyarrow.parquet as pq

    snapshot = ingest_into(prw_root, "prw")
    new = {"images": ["decoding", "stated_width", "stated_height"], "datasets": ["findings"]}
    for name, columns in new.items():
        path = snapshot.path / f"{name}.parquet"
        pq.write_table(pq.read_table(path).drop_columns(columns), path)
    before = Snapshot(snapshot.path)
    assert before.table("images")["decoding"].null_count == len(before.table("images"))
    assert before.table("images", filter=None).column_names == snapshot.table("images").column_names
    assert isinstance(check_snapshot(before), list)
