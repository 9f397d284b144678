"""`personsearch score` from files to numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from typer.testing import CliRunner

from data_catalog import schema
from data_catalog.matstream import StructStream
from flows.cli import protocol_files
from flows.cli.score import app
from personsearch_core.errors import PersonSearchError

PROTOCOL = "data/CUHK-SYSU/annotation/test/train_test/TestG100.mat"


def score(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    out = tmp_path / "out.json"
    result = CliRunner().invoke(app, [*map(str, arguments), "--json", str(out)])
    if result.exception is not None:
        raise result.exception
    numbers: dict[str, Any] = json.loads(out.read_text())
    return numbers


def options(folder: Path, *names: str) -> list[object]:
    return [part for name in names for part in (f"--{name}", folder / f"{name}.parquet")]


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def old_columns(path: Path) -> None:
    pq.write_table(pq.read_table(path).select(["query_id"]), path)


def prw_options(shared: Path) -> list[object]:
    return ["prw", *options(shared / "oracles/prw_mini", "detections", "queries", "images", "boxes")]


def expected(shared: Path, oracle: str) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((shared / "oracles" / oracle / "expected.json").read_text())
    return numbers


def test_cuhk_sysu_and_its_protocol_file_is_read_once(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared / "oracles/cuhk_sysu"
    arguments = ["cuhk-sysu", *options(folder, "detections", "queries"), "--cache", tmp_path / "cache"]
    arguments += ["--protocol-file", shared / PROTOCOL]
    first = score(tmp_path, *arguments, "--per-query", tmp_path / "per_query.parquet")
    wanted = expected(shared, "cuhk_sysu")["search"]["gallery_100"]
    assert {key: first[key] for key in wanted} == pytest.approx(wanted, abs=1e-9)
    assert first["score_threshold"] == 0.5
    assert set(first["seconds"]) == {"read", "protocol", "evaluate"}
    table = pq.read_table(tmp_path / "per_query.parquet")
    assert sum(table["ap"].to_pylist()) / len(table) == pytest.approx(wanted["mAP"], abs=1e-9)

    monkeypatch.setattr(StructStream, "__init__", lambda *_: pytest.fail("a .mat file was parsed again"))
    second = score(tmp_path, *arguments)
    assert {key: second[key] for key in wanted} == {key: first[key] for key in wanted}
    monkeypatch.undo()
    assert not protocol_files.read_protocol(shared / PROTOCOL, tmp_path / "cache").parsed

    queries = pq.read_table(folder / "queries.parquet")
    short = tmp_path / "queries.parquet"
    pq.write_table(queries.slice(1), short)
    with pytest.raises(PersonSearchError, match=r"lacks query 0; TestG100.mat has queries 0 to 2899"):
        score(tmp_path, *arguments, "--queries", short)
    images = pa.array(["s1.jpg", *queries["image"].to_pylist()[1:]])
    pq.write_table(queries.set_column(1, "image", images), short)
    with pytest.raises(PersonSearchError, match=r"query 0 is in image 's1.jpg', but TestG100.mat has it in"):
        score(tmp_path, *arguments, "--queries", short)


def test_prw_by_both_readings_of_boxes_per_image(shared: Path, tmp_path: Path) -> None:
    wanted = expected(shared, "prw_mini")
    numbers = score(tmp_path, *prw_options(shared), "--cross-camera")
    assert numbers["mAP"] == pytest.approx(wanted["cross_camera_thr0.5"]["mAP"], abs=1e-9)
    assert numbers["queries_without_truth"] == 1
    three = wanted["boxes_per_image"]["3"]
    numbers = score(tmp_path, *prw_options(shared), "--boxes-per-image", 3)
    assert numbers["score_threshold"] == three["score_threshold"]
    assert {k: numbers[k] for k in three["average_k"]} == pytest.approx(three["average_k"], abs=1e-9)
    numbers = score(tmp_path, *prw_options(shared), "--boxes-per-image", 3, "--per-image-top-k")
    assert numbers["mAP"] == pytest.approx(three["top_k_of_each_image"]["mAP"], abs=1e-9)
    assert numbers["score_threshold"] is None


def test_the_original_protocol_of_prw_reports_its_best_number_of_boxes(shared: Path, tmp_path: Path) -> None:
    by_budget = expected(shared, "prw_mini")["boxes_per_image"]
    numbers = score(
        tmp_path,
        *prw_options(shared),
        "--protocol",
        "zheng2017",
        "--boxes-per-image",
        2,
        "--sweep",
        "1,3,5,10",
    )
    assert {k: numbers[k] for k in ("mAP", "rank1", "rank20")} == pytest.approx(by_budget["2"]["zheng2017"])
    assert numbers["sweep"]["best_boxes_per_image"] == 5
    assert numbers["sweep"]["boxes_per_image"]["3"]["mAP"] == pytest.approx(
        by_budget["3"]["zheng2017"]["mAP"]
    )


def test_options_leave_the_standard_numbers_untouched(shared: Path, tmp_path: Path) -> None:
    standard = score(tmp_path, *prw_options(shared))
    more = score(
        tmp_path,
        *prw_options(shared),
        *("--cbgm", "30,4", "--rerank", "--bootstrap", 200, "--breakdown", "--multi-shot", "--threads", 2),
    )
    same = standard.keys() - {"seconds"}
    assert {key: more[key] for key in same} == {key: standard[key] for key in same}
    added = {"cbgm", "rerank", "bootstrap", "by_height", "by_crowdedness", "by_camera_pair", "multi_shot"}
    assert more.keys() - standard.keys() == added
    interval = more["bootstrap"]["mAP"]
    assert interval["low"] < interval["mean"] < interval["high"]


def test_detection(shared: Path, tmp_path: Path) -> None:
    folder = shared / "oracles/prw_mini"
    arguments = ["detection", *options(folder, "detections", "images", "boxes"), "--score-threshold", 0.01]
    numbers = score(tmp_path, *arguments)
    wanted = expected(shared, "prw_mini")["detection"]["0.01"]
    assert {key: numbers[key] for key in wanted} == pytest.approx(wanted, abs=1e-9)
    assert 0 < numbers["coco_ap"] < numbers["coco_ap50"]


def test_cocos_figures_are_pycocotools_for_the_whole_file(shared: Path, tmp_path: Path) -> None:
    folder = shared / "cases/score_detection_ap"
    arguments = ["detection", "--detections", folder / "det.parquet", "--images", folder / "img.parquet"]
    arguments += ["--boxes", folder / "box.parquet"]
    by_threshold = [score(tmp_path, *arguments, "--score-threshold", at) for at in (0, 0.5, 0.9)]
    expected = pycocotools_ap50(folder)
    assert expected == pytest.approx(0.505, abs=5e-4)
    assert [numbers["coco_ap50"] for numbers in by_threshold] == pytest.approx([expected] * 3, abs=1e-12)
    assert len({numbers["coco_ap"] for numbers in by_threshold}) == 1
    recall = [numbers["recall"] for numbers in by_threshold]
    assert recall == sorted(recall, reverse=True) and recall[0] > recall[-1]


def pycocotools_ap50(folder: Path) -> float:
    """AP50 as anyone gets it from these files with pycocotools and its own settings."""
    images = pq.read_table(folder / "img.parquet")["image"].to_pylist()

    def boxes(name: str) -> list[dict[str, Any]]:
        rows = pq.read_table(folder / f"{name}.parquet").to_pylist()
        return [
            {
                "id": number,
                "image_id": images.index(row["image"]),
                "category_id": 1,
                "bbox": [row["x1"], row["y1"], row["x2"] - row["x1"], row["y2"] - row["y1"]],
                "area": (row["x2"] - row["x1"]) * (row["y2"] - row["y1"]),
                "iscrowd": 0,
                "score": row.get("score"),
            }
            for number, row in enumerate(rows, start=1)
        ]

    truth = COCO()
    truth.dataset = {
        "images": [{"id": number} for number in range(len(images))],
        "categories": [{"id": 1}],
        "annotations": boxes("box"),
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(boxes("det")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[1])


def test_one_number_has_one_name_and_the_name_by_which_others_know_it(shared: Path, tmp_path: Path) -> None:
    more = ["--cbgm", "30,4", "--multi-shot", "--sweep", "3", "--bootstrap", 50, "--breakdown"]
    search = score(tmp_path, *prw_options(shared), *more)
    original = score(tmp_path, *prw_options(shared), "--protocol", "zheng2017", "--sweep", "3")
    named = [search, search["cbgm"], search["multi_shot"], search["sweep"]["boxes_per_image"]["3"]]
    for numbers in (*named, original, original["sweep"]["boxes_per_image"]["3"]):
        assert [numbers[f"top{k}"] for k in (1, 5, 10)] == [numbers[f"rank{k}"] for k in (1, 5, 10)]
        assert 0 < numbers["rank1"] <= numbers["rank5"] <= numbers["rank10"]
    assert search["bootstrap"]["rank1"] == search["bootstrap"]["top1"]
    assert search["bootstrap"]["rank1"]["mean"] == pytest.approx(search["rank1"])
    for key in ("by_height", "by_crowdedness", "by_camera_pair"):
        assert all(part["rank1"] == part["top1"] and "mAP" in part for part in search[key])


def test_two_runs_are_compared_query_by_query(shared: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    low = score(tmp_path, *prw_options(shared), "--boxes-per-image", 3, "--per-query", a)
    high = score(tmp_path, *prw_options(shared), "--boxes-per-image", 5, "--per-query", b)
    numbers = score(tmp_path, "compare", a, b, "--show", 2)
    assert numbers["difference"]["mean"] == pytest.approx(high["mAP"] - low["mAP"])
    assert numbers["better"] + numbers["worse"] + numbers["equal"] == high["queries"]
    assert numbers["p_value"] < 0.01
    assert [row["b"] > row["a"] for row in numbers["greatest_gains"]] == [True, True]


def test_queries_keep_the_numbers_of_their_file(shared: Path, tmp_path: Path) -> None:
    queries = pq.read_table(shared / "oracles/prw_mini/queries.parquet")
    numbers = [1000 + 10 * n for n in range(len(queries))]
    renamed, out = tmp_path / "queries.parquet", tmp_path / "per_query.parquet"
    place = queries.column_names.index("query")
    pq.write_table(queries.set_column(place, "query", pa.array(numbers)), renamed)
    for protocol in ("person-search", "zheng2017"):
        score(
            tmp_path, *prw_options(shared), "--queries", renamed, "--protocol", protocol, "--per-query", out
        )
        assert pq.read_table(out)["query"].to_pylist() == numbers


def per_query(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_an_evaluations_own_table_is_compared_by_setting(tmp_path: Path) -> None:
    settings = ["prw", "prw", "prw, re-ranked", "prw, re-ranked"]
    ids = ["0", "1", "0", "1"]
    a = per_query(tmp_path / "a.parquet", setting=settings, query_id=ids, ap=[0.1, 0.2, 0.3, 0.4])
    b = per_query(tmp_path / "b.parquet", setting=settings, query_id=ids, ap=[0.2, 0.2, 0.9, 0.4])
    by_number = per_query(tmp_path / "c.parquet", query=[0, 1], ap=[0.2, 0.2])
    for other in (b, by_number):
        headline = score(tmp_path, "compare", a, other)
        assert headline["greatest_gains"] == [{"query": "0", "a": 0.1, "b": 0.2}]
    re_ranked = score(tmp_path, "compare", a, b, "--setting", "prw, re-ranked")
    assert re_ranked["greatest_gains"] == [{"query": "0", "a": 0.3, "b": 0.9}]
    with pytest.raises(PersonSearchError, match=r"no setting 'x'; this table has: 'prw', 'prw, re-ranked'"):
        score(tmp_path, "compare", a, b, "--setting", "x")
    with pytest.raises(PersonSearchError, match=r"c.parquet: --setting chooses among the settings"):
        score(tmp_path, "compare", a, by_number, "--setting", "prw")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": [0, 1], "ap": ["high", "low"]}, r"b.parquet: column 'ap' must hold numbers, not string"),
        ({"query": [0, 1], "ap": [0.5, float("nan")]}, r"b.parquet: row 1: ap is nan; give finite numbers"),
        ({"query": [0, 1], "ap": [0.5, None]}, r"b.parquet: row 1: ap is null"),
        ({"query": [0, 2], "ap": [0.5, 0.5]}, r"do not have the same queries in the same order"),
        ({"ap": [0.5, 0.5]}, r"b.parquet: column 'query' is missing"),
        ({"setting": ["prw"] * 2, "ap": [0.5, 0.5]}, r"b.parquet: column 'query_id' is missing"),
    ],
)
def test_what_cannot_be_compared_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    good = per_query(tmp_path / "a.parquet", query=[0, 1], ap=[0.5, 0.5])
    with pytest.raises(PersonSearchError, match=message):
        score(tmp_path, "compare", good, per_query(tmp_path / "b.parquet", **columns))


def test_rescoring_takes_its_options(shared: Path, tmp_path: Path) -> None:
    standard = score(tmp_path, *prw_options(shared), "--rerank", "--cbgm", "30,4")
    same = score(tmp_path, *prw_options(shared), "--rerank-with", "20,6,0.3,200", "--cbgm", "30,4")
    assert same["rerank"] == standard["rerank"]
    other = score(
        tmp_path, *prw_options(shared), "--rerank-with", "5,2,0.9,20", "--cbgm", "30,4", "--cbgm-lift", "sum"
    )
    assert other["rerank"] != standard["rerank"]
    assert other["cbgm"] != standard["cbgm"]


def test_a_sweep_counts_boxes_as_the_standard_number_does(shared: Path, tmp_path: Path) -> None:
    for protocol in ("person-search", "zheng2017"):
        options = [*prw_options(shared), "--protocol", protocol, "--boxes-per-image", 3]
        for reading in ([], ["--per-image-top-k"]):
            numbers = score(tmp_path, *options, *reading, "--sweep", "1,3")
            assert numbers["sweep"]["boxes_per_image"]["3"]["mAP"] == numbers["mAP"]


def test_people_named_otherwise_than_in_the_ground_truth_are_warned_of(shared: Path, tmp_path: Path) -> None:
    queries = pq.read_table(shared / "oracles/prw_mini/queries.parquet")
    renamed, out = tmp_path / "queries.parquet", tmp_path / "out.json"
    people = pa.array([f"id {person}" for person in queries["person_id"].to_pylist()])
    place = queries.column_names.index("person_id")
    pq.write_table(queries.set_column(place, "person_id", people), renamed)
    for path, warned in ((renamed, True), (shared / "oracles/prw_mini/queries.parquet", False)):
        arguments = [*prw_options(shared), "--queries", path, "--json", out]
        outcome = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert outcome.exit_code == 0
        assert ("the ids of the two files do not match" in outcome.stderr) is warned


def test_unusable_options_are_named(shared: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["--per-image-top-k"], "needs --boxes-per-image"),
        (["--per-image-top-k", "--boxes-per-image", 1.5], "whole number"),
        (["--cbgm", "30"], "two whole numbers"),
        (["--rerank-with", "20,6,0.3"], "K1,K2,LAMBDA,DEPTH"),
        (["--rerank-with", "20,6,2,200"], "weight from 0 to 1"),
        (["--boxes-per-image", 1e308], "boxes per image are too many"),
        (["--protocol", "zheng2017", "--rerank-with", "20,6,0.3,200"], "does not work with"),
        (["--sweep", "1,x"], "--sweep takes whole numbers such as 1,2,3"),
        (["--cbgm", "0,3"], "whole numbers of at least 1"),
        (["--protocol", "zheng2017", "--rerank"], "does not work with"),
    ):
        with pytest.raises(PersonSearchError, match=message):
            score(tmp_path, *prw_options(shared), *arguments)


@pytest.fixture
def protocol_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as a protocol of some thousand rows, without the seconds that a real one takes."""

    def parse(path: Path) -> protocol_files.ProtocolTables:
        row = {"protocol": "TestG50", "image_id": "s1.jpg", "is_positive": False, "source_unit": path.name}
        rows = [row | {"query_id": str(i)} for i in range(5000)]
        return protocol_files.ProtocolTables(
            schema.QUERIES.empty_table(), pa.Table.from_pylist(rows, schema.GALLERY), parsed=True
        )

    monkeypatch.setattr(protocol_files, "_parse", parse)
    path = tmp_path / "TestG50.mat"
    path.write_text("a protocol")
    return path


@pytest.mark.parametrize("spoil", [damage, old_columns, Path.unlink])
def test_a_spoiled_cache_of_a_protocol_file_is_made_again(
    protocol_file: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    parsed = protocol_files.read_protocol(protocol_file, tmp_path)
    (kept,) = tmp_path.rglob("gallery.parquet")
    spoil(kept)
    again = protocol_files.read_protocol(protocol_file, tmp_path)
    assert again.parsed and again.gallery == parsed.gallery
    cached = protocol_files.read_protocol(protocol_file, tmp_path)
    assert not cached.parsed
    assert cached.gallery == parsed.gallery and cached.queries == parsed.queries


def test_a_protocol_file_is_read_where_nothing_can_be_kept(
    protocol_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert protocol_files.read_protocol(protocol_file, protocol_file / "does not exist").parsed
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert protocol_files.default_cache() is None
    assert protocol_files.read_protocol(protocol_file, None).parsed


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["prw", "--score-threshold", "nan"], "--score-threshold"),
        (["cuhk-sysu", "--score-threshold", "inf"], "--score-threshold"),
        (["detection", "--score-threshold", "nan"], "--score-threshold"),
        (["prw", "--boxes-per-image", "nan"], "--boxes-per-image"),
        (["compare", "a", "b", "--seed", "-1"], "--seed"),
    ],
)
def test_numbers_that_no_measure_knows_are_refused(arguments: list[str], option: str) -> None:
    files = {
        "prw": ("detections", "queries", "images", "boxes"),
        "cuhk-sysu": ("detections", "queries", "protocol-file"),
        "detection": ("detections", "images", "boxes"),
        "compare": (),
    }[arguments[0]]
    outcome = CliRunner().invoke(app, [*arguments, *(part for name in files for part in (f"--{name}", name))])
    assert outcome.exit_code == 2
    assert f"Invalid value for '{option}'" in outcome.output


def test_detections_of_an_unknown_image_are_named(shared: Path, tmp_path: Path) -> None:
    table = pq.read_table(shared / "oracles/prw_mini/detections.parquet")
    images = pa.array(["elsewhere.jpg", *table["image"].to_pylist()[1:]])
    path = tmp_path / "detections.parquet"
    pq.write_table(table.set_column(0, "image", images), path)
    with pytest.raises(PersonSearchError, match=r"row 0: unknown image 'elsewhere.jpg': 1 of 7129 rows"):
        score(tmp_path, *prw_options(shared), "--detections", path)
