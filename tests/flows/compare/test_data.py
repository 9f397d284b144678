"""Data that was added, removed and changed, by counts and examples."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_catalog.schema import BOXES, GALLERY, IMAGES
from data_catalog.snapshot import Snapshot, write_table
from flows.compare.data import compare_snapshots
from tests.flows.report.invented_diff import TwoResults


@pytest.fixture
def before(results: TwoResults) -> Path:
    (key,) = (key for _, key in results.store.keys("ingest"))
    return results.store.place.path_of("ingest", key)


def changed(before: Path, folder: Path) -> Snapshot:
    """Without a camera and with a box that somebody moved and named."""
    shutil.copytree(before, folder / "after")
    after = Snapshot(folder / "after")
    images, boxes = after.table("images"), after.table("boxes")
    kept = images.filter(pc.not_equal(images["camera_id"], images["camera_id"][0]))
    boxes = boxes.filter(pc.is_in(boxes["image_id"], value_set=kept["image_id"].combine_chunks()))
    rows = boxes.to_pylist()
    rows[0] |= {"x1": rows[0]["x1"] + 1, "person_id": "somebody new"}
    write_table(folder / "after" / "images.parquet", kept)
    write_table(folder / "after" / "boxes.parquet", pa.Table.from_pylist(rows, schema=BOXES))
    return after


def test_a_dropped_camera_and_a_changed_box_are_counted(before: Path, tmp_path: Path) -> None:
    old, new = Snapshot(before), changed(before, tmp_path)
    found = compare_snapshots(old, new)
    images, boxes, cameras = found["images"], found["boxes"], found["cameras"]
    assert (cameras.removed, cameras.added) == (1, 0) and len(cameras.removed_examples) == 1
    assert images.removed == images.before - images.after > 0 and (images.added, images.changed) == (0, 0)
    assert boxes.changed == 1 and boxes.removed == boxes.before - boxes.after > 0
    assert boxes.changed_examples == (new.table("boxes")["box_id"][0].as_py(),)
    assert set(images.removed_examples) <= set(old.table("images")["image_id"].to_pylist())
    assert found["identities"].added_examples == ("somebody new",)
    assert not found["queries"].differs

    back = compare_snapshots(new, old)
    assert (back["images"].added, back["images"].removed) == (images.removed, 0)
    assert back["identities"].removed == 1


def test_equal_snapshots_differ_in_nothing_and_unknown_values_are_equal(before: Path, tmp_path: Path) -> None:
    found = compare_snapshots(Snapshot(before), Snapshot(before))
    assert not any(each.differs for each in found.values())
    assert found["images"].before == found["images"].after == len(pq.read_table(before / "images.parquet"))
    unknown = tmp_path / "unknown"
    shutil.copytree(before, unknown)
    images = Snapshot(before).table("images")
    at = IMAGES.get_field_index("camera_id")
    nothing = pa.nulls(len(images), pa.int16())
    write_table(unknown / "images.parquet", images.set_column(at, IMAGES.field(at), nothing))
    assert not compare_snapshots(Snapshot(unknown), Snapshot(unknown))["images"].differs
    assert compare_snapshots(Snapshot(before), Snapshot(unknown))["images"].changed == len(images)


def test_galleries_alone_that_differ_are_told(before: Path, tmp_path: Path) -> None:
    """They decide the evaluation, so they are no column that no stage uses."""
    for folder, images in (("one", ["a"]), ("two", ["a", "b"])):
        shutil.copytree(before, tmp_path / folder)
        protocol = Snapshot(before).protocols()[0]
        rows = {"protocol": protocol, "query_id": "0", "is_positive": False, "source_unit": "drawn"}
        gallery = pa.Table.from_pylist([{**rows, "image_id": each} for each in images], schema=GALLERY)
        write_table(tmp_path / folder / "gallery" / f"{protocol}.parquet", gallery)
    found = compare_snapshots(Snapshot(tmp_path / "one"), Snapshot(tmp_path / "two"))
    assert [name for name, each in found.items() if each.differs] == ["galleries"]
    assert found["galleries"].changed_examples == (protocol,)
