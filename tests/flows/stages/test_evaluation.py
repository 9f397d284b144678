"""The evaluation stage on a drawn test set: the numbers of `score`, and queries joined to rows by id."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data_catalog.errors import CatalogError
from flows.cli.score import app
from flows.report.results import EvaluationFiles
from flows.stages import evaluation
from flows.stages.detected_blocks import DETECTION, QUERY
from flows.stages.detections import ROWS
from flows.stages.gallery import EMBEDDINGS
from flows.stages.test_set import TestSet
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.front import evaluate
from personsearch_core.evaluation.settings import Setting
from personsearch_core.recipes import EvaluationRecipe
from tests.flows.report.invented import ReportStore, make_store

BOX = ["x1", "y1", "x2", "y2"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ReportStore:
    return make_store(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture
def test_set(store: ReportStore, tmp_path: Path) -> TestSet:
    context = store.context("evaluation", tmp_path / "work")
    truth = context.inputs.truth
    return TestSet(context.inputs.gallery.path, truth.snapshot.path, truth.spec)


def exported(test: TestSet, folder: Path) -> list[str]:
    """The test set in `score`'s format; its options."""
    view = test.spec.of(test.snapshot)
    rows, embeddings = pq.read_table(test.gallery / ROWS), np.load(test.gallery / EMBEDDINGS)
    described = rows.append_column("embedding", pa.array(embeddings.tolist(), pa.list_(pa.float32())))
    described = described.rename_columns({"image_id": "image"})
    role = described["role"].cast(pa.string())
    found = described.filter(pc.equal(role, DETECTION)).select(["image", *BOX, "score", "embedding"])
    asked = pq.read_table(test.snapshot / "queries.parquet").select(
        ["query_id", "image_id", *BOX, "person_id"]
    )
    of_box = {
        (row["image"], *(row[name] for name in BOX)): row["embedding"]
        for row in described.filter(pc.equal(role, QUERY)).to_pylist()
    }
    vectors = [of_box[(row["image_id"], *(row[name] for name in BOX))] for row in asked.to_pylist()]
    queries = asked.rename_columns({"image_id": "image"}).append_column("embedding", pa.array(vectors))
    queries = queries.append_column("query", pa.array(np.arange(len(queries))))
    boxes = view.boxes.select(["image_id", *BOX, "person_id", "ignore"]).rename_columns({"image_id": "image"})
    images = view.images.select(["image_id", "camera_id"]).rename_columns({"image_id": "image"})
    options = []
    for name, table in (("detections", found), ("queries", queries), ("images", images), ("boxes", boxes)):
        pq.write_table(table, folder / f"{name}.parquet")
        options += [f"--{name}", str(folder / f"{name}.parquet")]
    return options


def scored(*arguments: str) -> dict[str, Any]:
    outcome = CliRunner().invoke(app, list(arguments))
    assert outcome.exit_code == 0, outcome.output
    numbers: dict[str, Any] = json.loads(outcome.stdout)
    return numbers


def test_run_and_score_give_one_number_one_name(
    store: ReportStore, test_set: TestSet, tmp_path: Path
) -> None:
    context = store.context("evaluation", tmp_path / "work")
    made = evaluation.make(context)
    options = exported(test_set, tmp_path)
    by_score = scored("prw", *options, "--sweep", "2,4")
    for name in ("mAP", "rank1", "rank5", "rank10", "mINP"):
        assert made.metrics[name] == by_score[name]
    settings = json.loads((context.work / evaluation.METRICS).read_text())["settings"]
    resampled = scored("prw", *options, "--bootstrap", str(context.recipe.bootstrap_samples))["bootstrap"]
    assert settings[0]["mAP_interval"] == [resampled["mAP"]["low"], resampled["mAP"]["high"]]
    shown = EvaluationFiles(context.work, 0.5, context.recipe.bootstrap_samples, context.recipe.seed)
    assert shown.rank1_intervals["prw"] == (resampled["rank1"]["low"], resampled["rank1"]["high"])
    for k in (2, 4):
        (setting,) = [each for each in settings if each["boxes_per_image"] == k]
        swept = by_score["sweep"]["boxes_per_image"][str(k)]
        assert {name: setting[name] for name in ("mAP", "rank1", "score_threshold")} == {
            name: swept[name] for name in ("mAP", "rank1", "score_threshold")
        }
    files = [*options[:2], *options[4:]]
    detection = scored("detection", *files)
    assert made.metrics["detection_ap50"] == detection["coco_ap50"] > 0
    assert made.metrics["detection_ap"] == detection["coco_ap"]
    assert made.metrics["detection_recall_at_0.5"] == detection["recall"]


def test_an_evaluation_has_all_readings_if_it_asks_for_them(
    store: ReportStore, test_set: TestSet, tmp_path: Path
) -> None:
    context = store.context("evaluation", tmp_path / "work")
    plain = evaluation.make(replace(context, recipe=context.recipe.model_copy(update={"readings": None})))
    without = json.loads((context.work / evaluation.METRICS).read_text())
    made = evaluation.make(context)
    assert made.metrics == plain.metrics and made.content_digest != plain.content_digest
    numbers = json.loads((context.work / evaluation.METRICS).read_text())
    readings = {each["name"]: each for each in numbers.pop("readings")}
    skipped = {each["name"] for each in numbers.pop("readings_skipped")}
    assert numbers == without
    by_score = tmp_path / "score.json"
    scored_table("prw", *exported(test_set, tmp_path), "--all-readings", "--json", str(by_score))
    expected = {each["name"]: each for each in json.loads(by_score.read_text())["readings"]}
    assert set(readings) == {*expected, "gt-boxes", "gt-boxes-cross-camera"} - skipped
    for name, reading in expected.items():
        assert readings[name]["mAP"] == reading["mAP"], name
    assert readings["seqnet"]["mAP"] == made.metrics["mAP"]


def scored_table(*arguments: str) -> None:
    outcome = CliRunner().invoke(app, list(arguments))
    assert outcome.exit_code == 0, outcome.output


def test_the_artifact_has_every_query_and_its_best_matches(store: ReportStore, tmp_path: Path) -> None:
    context = store.context("evaluation", tmp_path / "work")
    made = evaluation.make(context)
    assert made == evaluation.make(context)
    names = partial(evaluation.metric_names, context.recipe)
    is_untrained = made.metrics["mAP_untrained"] is not None
    wanted = {name for name in made.metrics if is_untrained or name != "mAP_untrained"}
    assert set(names(of_setting=False, untrained=is_untrained)) == wanted
    setting = json.loads((context.work / evaluation.METRICS).read_text())["settings"][-1]
    of_setting = set(names(of_setting=True, untrained=False))
    assert {name for name, value in setting.items() if isinstance(value, float)} <= of_setting <= set(setting)
    per_query = pq.read_table(context.work / evaluation.PER_QUERY)
    headline = per_query.filter(pc.equal(per_query["setting"], "prw"))
    assert pc.mean(headline["ap"]).as_py() == pytest.approx(made.metrics["mAP"])
    assert len(headline) == made.metrics["queries"]
    matches = pq.read_table(context.work / evaluation.MATCHES)
    first = matches.filter(pc.equal(matches["rank"], 1))
    assert first["query_id"].to_pylist() == headline["query_id"].to_pylist()
    assert first["is_right"].to_pylist() == headline["hit1"].to_pylist()


def test_queries_have_the_embeddings_of_their_boxes(test_set: TestSet) -> None:
    """Whatever the order in which a protocol asks for them."""
    protocol = test_set.search_protocol("prw")
    rows, embeddings = pq.read_table(test_set.gallery / ROWS), np.load(test_set.gallery / EMBEDDINGS)
    asked = pq.read_table(test_set.snapshot / "queries.parquet")
    role = rows["role"].cast(pa.string())
    for number, query in enumerate(asked.to_pylist()):
        mask = pc.and_(pc.equal(role, QUERY), pc.equal(rows["image_id"], query["image_id"]))
        for name in BOX:
            mask = pc.and_(mask, pc.equal(rows[name], pa.scalar(query[name], pa.float32())))
        (row,) = rows.filter(mask)["row"].to_pylist()
        np.testing.assert_array_equal(protocol.queries.embeddings[number], embeddings[row])


def test_protocols_that_ask_for_the_same_people_share_their_queries(test_set: TestSet) -> None:
    first, again = (test_set.search_protocol("prw") for _ in range(2))
    assert first.queries is again.queries


def test_a_gallery_of_other_queries_is_refused(test_set: TestSet, tmp_path: Path) -> None:
    rows = pq.read_table(test_set.gallery / ROWS)
    is_query = pc.equal(rows["role"].cast(pa.string()), QUERY)
    shifted = pc.if_else(is_query, pc.add(rows["x1"], pa.scalar(1, pa.float32())), rows["x1"])
    place = rows.column_names.index("x1")
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    pq.write_table(rows.set_column(place, rows.schema.field(place), shifted), gallery / ROWS)
    np.save(gallery / EMBEDDINGS, np.load(test_set.gallery / EMBEDDINGS))
    other = TestSet(gallery, test_set.snapshot, test_set.spec)
    with pytest.raises(CatalogError, match=r"for other query boxes .* --from detections"):
        other.search_protocol("prw")


def test_galleries_of_a_rule_are_no_lists(test_set: TestSet) -> None:
    inputs, recipe = test_set.inputs(EvaluationRecipe()), EvaluationRecipe(protocol="cuhk_sysu")
    assert inputs.protocols["prw"].lists is None
    with pytest.raises(PersonSearchError, match="protocol prw has no gallery lists, which are needed"):
        evaluate(recipe, inputs, settings=[Setting("gallery 100", "prw")])
