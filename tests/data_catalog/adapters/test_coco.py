"""COCO JSON: names of boxes, and rejects in bulk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.adapters import load_adapter
from data_catalog.coco_annotations import SeenIds
from data_catalog.ingest import ImageUse, counts_found, read_units
from data_catalog.rows import LARGE


def write(root: Path, annotations: list[dict[str, Any]]) -> None:
    value = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}],
        "annotations": annotations,
    }
    (root / "train.json").write_text(json.dumps(value))


def annotation(name: object, category: int = 1) -> dict[str, Any]:
    return {"id": name, "image_id": 1, "category_id": category, "bbox": [1, 1, 10, 20]}


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([7, 7, 8], ["7", "7@2", "8"]),
        (["x", "x", 7, "7"], ["x", "x@2", "7", "7@4"]),
        ([9, 3, 9], ["9", "3", "9@3"]),
    ],
)
def test_repeated_ids_give_different_boxes(
    tmp_path: Path, ingest_into: Any, ids: list[object], expected: list[str]
) -> None:
    write(tmp_path, [annotation(name) for name in ids])
    boxes = ingest_into(tmp_path, "coco", images=False).table("boxes", ["box_id"])
    assert boxes["box_id"].to_pylist() == [f"a.jpg#{name}" for name in expected]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-9, 9), max_size=8), max_size=6))
def test_ids_seen_before_are_found_across_parts(parts: list[list[int]]) -> None:
    seen, known = SeenIds(), set[int]()
    for part in parts:
        expected = [value in known or value in part[:index] for index, value in enumerate(part)]
        assert seen.repeated(pa.array(map(str, part), pa.string())).tolist() == expected
        known.update(part)


def test_rejects_are_written_as_they_come(
    tmp_path: Path, ingest_into: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of other objects alone is not gathered in memory."""
    monkeypatch.setattr("data_catalog.jsonstream.BLOCK", 1 << 18)
    write(tmp_path, [annotation(i, category=2) for i in range(2 * LARGE)])
    adapter = load_adapter("coco")
    units = adapter.discover(tmp_path, {}).units
    parts = list(read_units(adapter, tmp_path, units, options={}, use=ImageUse(read=False)))
    assert len(parts) > 1 and sum(len(part.rejects) for part in parts) == 2 * LARGE
    snapshot = ingest_into(tmp_path, "coco", images=False)
    counts = counts_found(snapshot)
    assert counts["rejects"] == counts["train.rejects"] == 2 * LARGE
    rows = snapshot.table("rejects", ["source_row"])["source_row"].to_numpy()
    assert (rows == np.arange(1, 2 * LARGE + 1)).all()
