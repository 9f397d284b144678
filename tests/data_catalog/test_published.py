"""The totals that publications give, beside those found."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_catalog.published import compare_published, counts_with_people
from data_catalog.schema import TABLES
from data_catalog.snapshot import Snapshot, table_path
from data_catalog.statistics import statistics
from data_catalog.validation import check_snapshot


def with_counts(snapshot: Snapshot, **counts: int) -> Snapshot:
    """The snapshot as if the ingest had counted so."""
    row = snapshot.table("datasets").to_pylist()[0]
    row["counts_found"] = list((dict(row["counts_found"]) | counts).items())
    pq.write_table(
        pa.Table.from_pylist([row], schema=TABLES["datasets"]), table_path(snapshot.path, "datasets")
    )
    return snapshot


def test_a_difference_of_the_public_files_is_explained(prw_root: Path, ingest_into: Any) -> None:
    full = {"images": 11_816, "boxes_with_id": 34_034, "ids": 933, "train.ids": 483, "test.ids": 544}
    snapshot = with_counts(ingest_into(prw_root, "prw"), **full)
    compared = {each.name: str(each) for each in compare_published(snapshot)}
    assert compared["images"] == "images 11,816 as given"
    assert compared["boxes_with_id"].startswith("boxes_with_id 34,034 where 34,304 is given (v16.04.20 holds")
    found = {finding.code: finding for finding in check_snapshot(snapshot)}
    assert found["not_as_published"].message.startswith("Loesch, Rabarisoa, Audigier, ICIP 2019: ")
    assert "images 11,816" not in found["not_as_published"].message
    assert any("94 are in train, too" in str(each) for each in statistics(snapshot).published)


def test_ignore_regions_are_no_people(shared: Path, ingest_into: Any) -> None:
    """A whole split is as the sources give it, ignore regions and all."""
    root = shared / "data" / "WIDER_Pedestrian_2018"
    snapshot = ingest_into(root, "wider-pedestrian", images=False, val="val_annotations_rebuilt.txt")
    snapshot = with_counts(snapshot, **{"val.boxes": 20_062, "val.ignored": 10})
    assert counts_with_people(snapshot)["val.people"] == 20_052
    message = next(each.message for each in check_snapshot(snapshot) if each.code == "counts_differ")
    assert "train.people" in message and "val.people" not in message


@pytest.mark.parametrize("adapter", ["coco", "not-installed"])
def test_an_adapter_that_knows_no_totals(prw_root: Path, ingest_into: Any, adapter: str) -> None:
    snapshot = ingest_into(prw_root, "prw")
    row = snapshot.table("datasets").to_pylist()[0] | {"adapter": adapter}
    pq.write_table(
        pa.Table.from_pylist([row], schema=TABLES["datasets"]), table_path(snapshot.path, "datasets")
    )
    assert compare_published(snapshot) == []


@pytest.mark.parametrize(
    ("folder", "compared"), [("MOT17-02", True), ("MOT17-02-FRCNN", False), ("MOT20-01", False)]
)
def test_other_editions_are_not_compared(
    mot_root: Path, ingest_into: Any, folder: str, compared: bool
) -> None:
    first, *others = sorted((mot_root / "train").iterdir())
    for other in others:
        shutil.rmtree(other)
    first.rename(first.with_name(folder))
    assert bool(compare_published(ingest_into(mot_root, "mot17"))) is compared


def test_ignore_regions_are_not_counted_as_people_of_an_image(mot_root: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(mot_root, "mot17")
    people = snapshot.table("boxes", ["image_id"], ~pc.field("ignore"))["image_id"].to_pylist()
    histogram = statistics(snapshot).histograms[0]
    assert len(people) < len(snapshot.table("boxes")) and sum(histogram.counts) == len(
        snapshot.table("images")
    )
    expected = np.histogram(
        [people.count(each) for each in snapshot.table("images")["image_id"].to_pylist()], histogram.edges
    )
    assert histogram.counts == tuple(expected[0].tolist())
