"""Rows of a test view from features of another program: what the key covers, and of no one forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.adapters.protocol import Layout
from data_catalog.errors import CatalogError
from data_catalog.forgotten import FORGOTTEN
from data_catalog.ingest import Fingerprint
from data_catalog.schema import TABLES
from data_catalog.snapshot import Snapshot, table_path, write_table
from flows.config.foreign import find_features, foreign_digest
from flows.config.loading import load_config
from flows.plan.views import SnapshotView, ViewSpec
from flows.stages import foreign, ingest
from flows.stages.base import Made
from flows.stages.building import build_stages
from flows.stages.detected_blocks import QUERY, TRUTH
from flows.stages.detections import ROWS
from flows.stages.gallery import EMBEDDINGS
from flows.stages.test_set import TestSet
from personsearch_core.recipes import DetectionsRecipe
from storage.feature_store import create_features, open_features, write_index
from storage.manifest import Identity, Manifest
from storage.store import Artifact
from tests.flows.report.invented import Silent
from tests.flows.test_golden_keys import drawn_snapshot

CONFIG = """
store: store
datasets: {photos: {adapter: prw, root: photos}}
features: {use: ./features}
reid: {train: {dataset: photos, split: train, min_height: 11}, branch: {initial_weights: random}}
evaluation: {test: {dataset: photos, split: test}, protocol: prw, ground_truth_boxes: only}
"""
BOXES = ["a#1", "a#2", "b#3", "t#4", "t#5", "t#6"]
SPEC = ViewSpec("photos", "test", "truth", protocols=("prw",))


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    with create_features(tmp_path / "features", len(BOXES), (4,), "float16") as writer:
        writer.write(0, np.arange(4 * len(BOXES), dtype=np.float16).reshape(-1, 4))
    write_index(tmp_path / "features", pa.table({"row": range(len(BOXES)), "box_id": BOXES}))
    return drawn_snapshot(tmp_path / "snapshot")


def test_keys_depend_on_the_rows_of_people_and_on_the_features(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on pixels, which nothing opens, nor on protocols that are not scored."""
    monkeypatch.setattr(ingest, "_fingerprint", lambda *_, **__: Fingerprint("files", Layout(()), {}, {}))
    (snapshot.parent / "photos").mkdir()
    (snapshot.parent / "config.yaml").write_text(CONFIG)
    config = load_config(snapshot.parent / "config.yaml")
    stages = {stage.name: stage for stage in build_stages(config)}
    views = {
        stage.name: {name: ref.view for name, ref in stage.inputs.items() if ref.view is not None}
        for stage in stages.values()
        if stage.fixed_inputs and stage.kind != "ingest"
    }
    train = ViewSpec("photos", "train", "truth", min_height=11)
    assert views == {"features": {"people": train}, "detections": {"test": SPEC}}
    for name in views:
        assert dict(stages[name].fixed_inputs) == {"foreign": foreign_digest(snapshot.parent / "features")}
    assert [stages[name].version for name in views] == [1, 2]
    assert "detector" not in {ref.stage for stage in stages.values() for ref in stage.inputs.values()}


def made(snapshot: Path, work: Path) -> tuple[Made, dict[str, list[Any]]]:
    """What the stage makes, and the ids of the boxes whose features are in its rows, by role."""
    work.mkdir()
    of = Identity(kind="ingest", version=1, recipe={}, inputs={})
    artifact = Artifact(snapshot, Manifest.model_construct(identity=of, key=of.key))
    options = find_features("./features", snapshot.parent).model_dump(mode="json")
    context = foreign.TEST.context(
        DetectionsRecipe().model_dump(mode="json"),
        {"test": SnapshotView(artifact, SPEC, snapshot.parent)},
        options,
        work=work,
        reporter=Silent(),
    )
    result = foreign.make_test(context)
    with open_features(work) as reader:
        features = reader.rows(np.arange(len(reader)))[:, 0, 0, 0]
    shown: dict[str, list[Any]] = {QUERY: [], TRUTH: []}
    for role, feature in zip(pq.read_table(work / ROWS)["role"].to_pylist(), features, strict=True):
        shown[role].append(BOXES[int(feature) // 4])
    return result, shown


def add(snapshot: Path, table: str, like: int, **values: Any) -> None:
    """Add a row that is like another one but for some values."""
    rows = Snapshot(snapshot).table(table).to_pylist()
    rows.append({**rows[like], **values})
    write_table(table_path(snapshot, table), pa.Table.from_pylist(rows, schema=TABLES[table]))


def change(snapshot: Path, table: str, row: int, **values: Any) -> None:
    rows = Snapshot(snapshot).table(table).to_pylist()
    rows[row] |= values
    write_table(table_path(snapshot, table), pa.Table.from_pylist(rows, schema=TABLES[table]))


def test_queries_of_protocols_that_are_not_scored_change_nothing(snapshot: Path, tmp_path: Path) -> None:
    digests = SPEC.of(snapshot).digests("truth", SPEC.protocols)
    before, shown = made(snapshot, tmp_path / "before")
    assert shown == {QUERY: ["t#4"], TRUTH: ["t#4", "t#5"]}
    add(snapshot, "queries", 0, protocol="drawn", query_id="d1", x1=60, y1=10, x2=90, y2=80, person_id="8")
    assert SPEC.of(snapshot).digests("truth", SPEC.protocols) == digests
    after, again = made(snapshot, tmp_path / "after")
    assert (after.content_digest, after.metrics, again) == (before.content_digest, before.metrics, shown)
    gallery = tmp_path / "after"
    np.save(gallery / EMBEDDINGS, np.eye(3, dtype=np.float32))
    test = TestSet(gallery, snapshot, SPEC)
    assert test.search_protocol("prw").queries.embeddings.tolist() == [[1, 0, 0]]
    with pytest.raises(CatalogError, match="for other query boxes"):
        test.search_protocol("drawn")


def test_a_query_has_the_features_of_the_box_that_it_names(snapshot: Path, tmp_path: Path) -> None:
    """Though another box lies at the same place."""
    add(snapshot, "boxes", 3, box_id="t#6", person_id="8", source_row=6)
    change(snapshot, "queries", 0, box_id="t#4")
    _, shown = made(snapshot, tmp_path / "made")
    assert shown == {QUERY: ["t#4"], TRUTH: ["t#4", "t#5", "t#6"]}


def test_nothing_is_taken_of_a_forgotten_person(snapshot: Path, tmp_path: Path) -> None:
    change(snapshot, "boxes", 4, person_id=None, ignore=True, ignore_reason=FORGOTTEN)
    _, shown = made(snapshot, tmp_path / "made")
    assert shown == {QUERY: ["t#4"], TRUTH: ["t#4"]}
