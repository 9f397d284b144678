"""docs/exchange.md: its SQL runs, its writer is the example, and Croissant's own library reads a dataset."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from data_catalog.synthetic import PrwSpec, write_prw
from tests.in_process import InProcess, in_process
from tests.pages import PROJECT

__all__ = ["in_process"]

PAGE = (PROJECT / "docs/exchange.md").read_text(encoding="utf-8")
SQL = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def ingested(tmp_path: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a small dataset's snapshot, and the current folder of the commands."""
    monkeypatch.chdir(tmp_path)
    write_prw(tmp_path / "prw", PrwSpec(train_images=4, test_images=4, train_identities=3, test_identities=3))
    assert in_process("datasets ingest prw --adapter prw --name scenes --store store").status == 0
    return next((tmp_path / "store" / "ingest").iterdir())


def test_the_recipes_run(ingested: Path) -> None:
    duckdb: Any = pytest.importorskip("duckdb", reason="duckdb is not installed")
    assert len(SQL) > 4
    found = [duckdb.sql(text.replace("SNAPSHOT", str(ingested))).fetchall() for text in SQL]
    cameras, heights, crowded, _, _, pairs = found
    assert sum(people for _, people in cameras) == 6 and cameras
    assert [split for split, _, _ in heights] == ["test", "train"]
    assert len(crowded) == 8 and crowded[0][1] >= crowded[-1][1] and pairs


def test_the_writer_is_the_example() -> None:
    example = (PROJECT / "docs/examples/foreign_features/write_features.py").read_text(encoding="utf-8")
    assert f"```python\n{example}```" in PAGE


def test_croissant_reads_a_described_dataset(ingested: Path, in_process: InProcess) -> None:
    mlcroissant: Any = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    published = "--license CC-BY-4.0 --url https://example.org --creator Ann --organization Lab"
    ended = in_process(f"datasets croissant scenes described --store store {published}")
    assert ended.status == 0 and "lacks" not in ended.output, ended.error
    dataset = mlcroissant.Dataset("described/croissant.json")
    issues = dataset.metadata.issues
    assert not issues.errors and not any("schema.org" in str(each) for each in issues.warnings)
    assert dataset.metadata.name == "scenes"
    assert [each.name for each in dataset.metadata.creators] == ["Ann", "Lab"]
    boxes = list(dataset.records("boxes"))
    held = json.loads(Path("described/croissant.json").read_text())
    assert f"{len(boxes)} boxes" in held["description"]
    assert {"boxes/person_id", "boxes/x1"} <= boxes[0].keys()
    assert "holds files already" in in_process("datasets croissant scenes described --store store").message
    bare = in_process("datasets croissant scenes bare --store store")
    assert "lacks what Croissant requires: give --license, --url, --creator" in bare.output
    assert held.keys() - json.loads(Path("bare/croissant.json").read_text()).keys() == {
        "license",
        "url",
        "creator",
    }


def test_an_export_is_ingested_again(ingested: Path, in_process: InProcess) -> None:
    lost = in_process("datasets export tracks --view scenes --format mot --store store")
    assert lost.status == 0 and "not held by mot: " in lost.output and "images.camera_id" in lost.output
    for layout, adapter, option in (
        ("coco", "coco", "--option columns=catalog"),
        ("fiftyone", "coco", "--option columns=catalog"),
        ("yolo", "yolo", ""),
    ):
        wrote = in_process(
            f"datasets export {layout} --view scenes --format {layout} --store store --json {layout}.json"
        )
        assert wrote.status == 0, wrote.error
        again = in_process(
            f"datasets ingest {layout} --adapter {adapter} {option} --name {layout} --store store"
        )
        assert again.status == 0, again.error
        counts = json.loads(Path(f"{layout}.json").read_text())
        assert f"{counts['boxes']} boxes" in wrote.output and (layout == "yolo") == (
            "boxes.person_id" in counts["lost"]
        )
