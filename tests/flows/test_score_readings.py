"""`personsearch score --all-readings` and `--published` from files to tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data_catalog.synthetic.matlab import structs, write_mat
from flows.cli.score import app
from personsearch_core.errors import PersonSearchError
from tests.flows.test_score import expected, options, prw_options, score


def by_name(numbers: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {reading["name"]: reading for reading in numbers["readings"]}


def test_prw_in_one_table_and_what_a_published_number_is_of(shared: Path, tmp_path: Path) -> None:
    wanted = expected(shared, "prw_mini")
    boxes = pq.read_table(shared / "oracles/prw_mini/boxes.parquet")
    described = np.eye(256, dtype=np.float32)[np.arange(len(boxes)) % 256]
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(described.ravel()), 256)
    pq.write_table(boxes.append_column("embedding", embedding), tmp_path / "boxes.parquet")
    arguments = [*prw_options(shared), "--boxes", tmp_path / "boxes.parquet", "--cbgm", "30,4"]
    numbers = score(tmp_path, *arguments, "--published", "mAP=.512,rank1=68.1")
    readings = by_name(numbers)
    assert numbers["mAP"] == pytest.approx(wanted["all_cameras_thr0.5"]["mAP"], abs=1e-9)
    across = wanted["cross_camera_thr0.5"]
    for name in ("coat-multi-view", "gfn-cross-camera"):
        assert {key: readings[name][key] for key in across} == pytest.approx(across, abs=1e-9)
        assert readings[name]["queries_without_truth"] == 1
    of_zheng = wanted["boxes_per_image"]["5"]["zheng2017"]
    found = readings["zheng2017-average-5"]
    assert {key: found[key] for key in of_zheng} == pytest.approx(of_zheng, abs=1e-9)
    assert {"cbgm", "gt-boxes", "gt-boxes-cross-camera"} <= set(readings) and not numbers["skipped"]
    assert "LukeJaffe/GFN" in readings["gfn"]["equal_to"]
    assert numbers["published"]["matches"] == ["seqnet", "coat", "gfn"]


def test_a_number_of_no_reading_is_told_with_the_nearest(shared: Path) -> None:
    arguments = [*prw_options(shared), "--published", "mAP=.252,rank1=.47"]
    outcome = CliRunner().invoke(app, [str(each) for each in arguments])
    assert outcome.exit_code == 0
    assert "no reading is within rounding of mAP=.252, rank1=.47; the nearest is alignps" in outcome.stdout
    assert "skipped gt-boxes: the ground-truth boxes have no embeddings" in outcome.stdout


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--all-readings", "--cross-camera", "--sweep", "3"],
            r"not work with --cross-camera, --sweep:",
        ),
        (["--published", "mAP=.25", "--score-threshold", "0.2"], r"not work with --score-threshold"),
        (["--published", "mAP"], r"'mAP' is not a published number"),
    ],
)
def test_readings_have_their_own_rules(shared: Path, tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(PersonSearchError, match=message):
        score(tmp_path, *prw_options(shared), *more)


def entry(query: int, gallery: dict[str, bool]) -> dict[str, Any]:
    """Person p{query} is at the same place everywhere; boxes are x, y, w, h."""
    box = np.array((10 * query, 20, 40, 100), np.uint16)
    rows = [
        {"imname": name, "idlocate": box if shown else np.empty((1, 0)), "ishard": 0}
        for name, shown in gallery.items()
    ]
    asked = {"imname": f"s{query}.jpg", "idlocate": box, "ishard": 0, "idname": f"p{query}"}
    fields = ("imname", "idlocate", "ishard")
    return {"Query": structs((*fields, "idname"), [asked]), "Gallery": structs(fields, rows)}


def write_protocol(path: Path, variable: str, entries: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mat(path, variable, structs(("Query", "Gallery"), entries))


@pytest.fixture
def cuhk_sysu(tmp_path: Path) -> list[object]:
    """Three queries and five images with one detection each; queries 1 and 2 find theirs at rank 1 and 2."""
    root = tmp_path / "annotation" / "test"
    galleries = [{"s3.jpg": True, "s4.jpg": False}] * 3
    entries = [entry(query, gallery) for query, gallery in enumerate(galleries)]
    write_protocol(root / "train_test" / "TestG100.mat", "TestG100", entries)
    write_protocol(root / "subset" / "Occlusion.mat", "Occlusion1", entries[1:2])
    images = [f"s{number}.jpg" for number in range(5)]
    corners = {"x1": [10.0] * 5, "y1": [20.0] * 5, "x2": [50.0] * 5, "y2": [120.0] * 5}
    embedding = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    found = {"image": images, **corners, "score": [0.9] * 5, "embedding": embedding}
    pq.write_table(pa.table(found), tmp_path / "detections.parquet")
    x1 = [0.0, 10.0, 20.0]
    asked = {"x1": x1, "y1": [20.0] * 3, "x2": [x + 40 for x in x1], "y2": [120.0] * 3}
    queries = {"query": [0, 1, 2], "image": images[:3], **asked, "embedding": embedding[:3]}
    pq.write_table(pa.table(queries), tmp_path / "queries.parquet")
    files = options(tmp_path, "detections", "queries")
    protocol = root / "train_test" / "TestG100.mat"
    return ["cuhk-sysu", *files, "--protocol-file", protocol, "--cache", tmp_path / "cache"]


def test_subsets_beside_the_protocol_are_read_and_others_named(
    cuhk_sysu: list[object], tmp_path: Path
) -> None:
    numbers = score(tmp_path, *cuhk_sysu, "--all-readings")
    readings = by_name(numbers)
    assert readings["seqnet"]["queries"] == 3
    assert (readings["occlusion"]["queries"], readings["occlusion"]["mAP"]) == (1, 1.0)
    reasons = {each["name"]: each["reason"] for each in numbers["skipped"]}
    assert set(reasons) == {"low-resolution", "gt-boxes"}
    assert reasons["low-resolution"].endswith("annotation/test/subset/Resolution.mat does not exist")


def test_a_subset_of_other_queries_is_skipped(cuhk_sysu: list[object], tmp_path: Path) -> None:
    other = [entry(1, {"s3.jpg": True}), entry(7, {"s3.jpg": True})]
    write_protocol(tmp_path / "annotation/test/subset/Resolution.mat", "Test_Size", other)
    numbers = score(tmp_path, *cuhk_sysu, "--all-readings")
    reasons = {each["name"]: each["reason"] for each in numbers["skipped"]}
    assert "1 of its 2 queries are not in" in reasons["low-resolution"]
    assert "(first: query 1 in s7.jpg)" in reasons["low-resolution"]


def test_ground_truth_boxes_need_embeddings(cuhk_sysu: list[object], tmp_path: Path) -> None:
    truth = {
        "image": ["s3.jpg"],
        "x1": [10.0],
        "y1": [20.0],
        "x2": [50.0],
        "y2": [120.0],
        "person_id": ["p1"],
        "embedding": [[1.0, 0.0]],
    }
    pq.write_table(pa.table(truth), tmp_path / "boxes.parquet")
    boxes = ["--boxes", tmp_path / "boxes.parquet"]
    readings = by_name(score(tmp_path, *cuhk_sysu, *boxes, "--all-readings"))
    assert 0 < readings["gt-boxes"]["mAP"] <= 1
    with pytest.raises(PersonSearchError, match="--boxes is for --all-readings only"):
        score(tmp_path, *cuhk_sysu, *boxes)
