"""What `check` finds, and what statistics, drawings and exports show."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image
from scipy.io import savemat

from data_catalog.adapters import load_adapter
from data_catalog.drawing import draw_image
from data_catalog.errors import CatalogError
from data_catalog.exchange.coco import export_coco
from data_catalog.image_ids import find_images
from data_catalog.ingest import counts_found
from data_catalog.statistics import statistics
from data_catalog.validation import check_snapshot, damaged_rows
from data_catalog.views import View


def _codes(snapshot: Any) -> dict[str, int]:
    return {finding.code: finding.count for finding in check_snapshot(snapshot)}


def test_duplicates_within_and_between(prw_root: Path, ingest_into: Any) -> None:
    frames = sorted(path.name for path in (prw_root / "frames").iterdir())
    shutil.copy(prw_root / "frames" / frames[0], prw_root / "frames" / frames[-1])
    rows = np.array([[7.0, 1, 1, 20, 30], [7, 1, 1, 20, 30], [-2, -5, 1, 20, 30]])
    for name in (frames[0], frames[-1]):
        savemat(prw_root / "annotations" / f"{name}.mat", {"box_new": rows})
    snapshot = ingest_into(prw_root, "prw")
    splits = dict(zip(*(snapshot.table("images")[c].to_pylist() for c in ("image_id", "split")), strict=True))
    codes = _codes(snapshot)
    assert codes["image_in_two_splits" if splits[frames[0]] != splits[frames[-1]] else "image_twice"] == 1
    assert (codes["box_twice"], codes["identity_twice_in_image"]) == (2, 2)
    assert codes["box_leaves_image"] >= 2
    assert "counts_differ" in codes


def test_statistics_count_everybody(mot_root: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(mot_root, "mot17", name="<script>")
    found = statistics(snapshot)
    counts = counts_found(snapshot)
    heights = next(each for each in found.histograms if each.title.startswith("Height"))
    assert sum(heights.counts) == counts["boxes"] - counts["ignored"]
    assert [each.title for each in found.histograms if not sum(each.counts)] == []  # none is empty


def test_an_image_is_drawn_with_its_boxes(prw_root: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(prw_root, "prw")
    image_id = snapshot.table("images")["image_id"][0].as_py()
    drawn = np.asarray(draw_image(snapshot, image_id, prw_root)).astype(int)
    plain = np.asarray(Image.open(prw_root / "frames" / image_id)).astype(int)
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()
    with pytest.raises(CatalogError, match="no image 'nobody'"):
        draw_image(snapshot, "nobody", prw_root)
    with pytest.raises(
        CatalogError, match=r"does not exist; is .*annotations the folder that was ingested\?"
    ):
        draw_image(snapshot, image_id, prw_root / "annotations")


@pytest.mark.parametrize(("stored", "typed"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_an_image_is_found_however_its_accents_are_typed(
    stored: Literal["NFC", "NFD"], typed: Literal["NFC", "NFD"], tmp_path: Path, ingest_into: Any
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    name = unicodedata.normalize(stored, "Köln 1")
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    snapshot = ingest_into(tmp_path, "yolo")
    found = find_images(snapshot, like=unicodedata.normalize(typed, "köln"))["image_id"].to_pylist()
    assert len(found) == 1
    assert draw_image(snapshot, unicodedata.normalize(typed, found[0]), tmp_path).size == (40, 30)


def test_damaged_rows_are_told_with_their_place_and_each_reason_once(
    mot_root: Path, ingest_into: Any
) -> None:
    truth = next(mot_root.glob("train/*/gt/gt.txt"))
    rows = len(truth.read_text().splitlines())
    with truth.open("a") as file:
        file.write("1,99,5,5,nan,9,1,1,1\n" * 2)
    (told,) = damaged_rows(ingest_into(mot_root, "mot17"))
    assert told.count == 2 and told.message.count("gt.txt, row ") == 1
    assert f"gt.txt, row {rows + 1}: " in told.message


def test_an_export_is_read_again(prw_root: Path, mot_root: Path, tmp_path: Path, ingest_into: Any) -> None:
    views = [View(ingest_into(prw_root, "prw"), "train"), View(ingest_into(mot_root, "mot17"), "train")]
    out = tmp_path / "union"
    out.mkdir()
    written = export_coco(views, out / "train.json", roots=["prw", "mot17"])
    images, boxes = written.images, written.boxes
    value = json.loads((out / "train.json").read_text())
    assert (len(value["images"]), len(value["annotations"])) == (images, boxes)
    assert load_adapter("coco").options["person_id"]
    again = ingest_into(out, "coco", images=False, person_id="person_id")
    counts = counts_found(again)
    assert counts["images"] == sum(len(view.images) for view in views)
    assert counts["boxes"] == sum(len(view.boxes) for view in views)
    assert counts["ignored"] == sum(pc.sum(view.boxes["ignore"]).as_py() for view in views)
    assert counts["ids"] == sum(len(view.boxes["person_id"].drop_null().unique()) for view in views)


def test_an_export_is_whole_or_not_there(
    prw_root: Path, ingest_into: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out" / "train.json"
    views = [View(ingest_into(prw_root, "prw"), "train")]
    with pytest.raises(CatalogError, match="cannot be written"):
        export_coco(views, target)
    target.parent.mkdir()
    target.write_text("of before")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data_catalog.exchange.coco._annotations", stop)
    with pytest.raises(KeyboardInterrupt):
        export_coco(views, target)
    assert target.read_text() == "of before" and len(list(target.parent.iterdir())) == 1
