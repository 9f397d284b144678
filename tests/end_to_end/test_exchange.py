"""Features of another network take a detector's place: the documented writer, a config, a tracked run."""

from __future__ import annotations

import json
import runpy
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from flows.config.loading import load_config
from flows.errors import ConfigError
from flows.plan.finished import finished_model
from flows.studies.sweeping import sweep_columns
from storage.feature_store import open_features
from tests.end_to_end.commands import PROJECT, here
from tests.end_to_end.tiny import tiny_settings
from tests.flows.tracking.mlflow_server import keeping_server
from tests.in_process import InProcess, in_process

__all__ = ["in_process"]

WRITER = PROJECT / "docs/examples/foreign_features/write_features.py"


def write_config(folder: Path, data: Path, trackers: list[object]) -> Path:
    settings = tiny_settings(data, "store")
    for name in ("detector", "roi", "detections", "report"):
        del settings[name]
    del settings["datasets"]["tracks"]
    settings["features"] = {"use": "./vit"}
    settings["reid"]["branch"] |= {"initial_weights": "random"}
    settings["evaluation"] = {
        "test": settings["evaluation"]["test"],
        "protocol": "prw",
        "ground_truth_boxes": "only",
    }
    settings["run"]["trackers"] = trackers
    path = folder / "vit.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_run_on_features_from_elsewhere(
    tmp_path: Path, tiny_data: Path, in_process: InProcess, prefect_api: str
) -> None:
    store, features = tmp_path / "store", tmp_path / "vit"
    root = shlex.quote(str(tiny_data / "prw"))
    ingested = in_process(f"datasets ingest {root} --adapter prw --name scenes --store {store}")
    assert ingested.status == 0, ingested.error
    runpy.run_path(str(WRITER))["main"](str(store), "scenes", str(tiny_data / "prw"), str(features))
    with keeping_server() as (url, kept):
        down = {"name": "mlflow", "options": {"uri": "http://127.0.0.1:9"}}
        config = write_config(tmp_path, tiny_data, [{"name": "mlflow", "options": {"uri": url}}, down])
        outcome = here("run", config, json_to=tmp_path / "outcome.json")
        assert outcome.status == 0, outcome.stderr
    assert list(outcome.states) == [
        "ingest:scenes",
        "features",
        "reid",
        "detections",
        "gallery",
        "evaluation",
    ]
    assert outcome.data["results"]["mAP"] is not None and "run.trackers: mlflow: 127.0.0.1" in outcome.stderr
    with open_features(outcome.path("features")) as taken, open_features(features) as given:
        row = pc.index_in(taken.index["box_id"], value_set=given.index["box_id"].combine_chunks())
        assert (taken.rows(range(len(taken))) == given.rows(row.to_numpy())).all()
        assert taken.index["person_id"].null_count == 0 and len(taken) < len(given)
    metrics = json.loads((outcome.path("evaluation") / "metrics.json").read_text())
    assert [each["name"] for each in metrics["settings"]] == ["prw, ground-truth boxes"]
    assert kept.bodies("runs/update")[0]["status"] == "FINISHED"
    told = {metric["key"] for body in kept.bodies("log-batch") for metric in body.get("metrics", [])}
    assert {"evaluation/mAP", "reid/history/loss", "features/rows"} <= told
    assert here("run", config, json_to=tmp_path / "again.json").data["wall_seconds"] < 10
    columns = sweep_columns(load_config(config))
    assert "mAP" in columns and not any("detection" in name for name in columns)
    with pytest.raises(ConfigError, match=r"this config has no model that can embed new images"):
        finished_model(config)
    index = pq.read_table(features / "index.parquet")
    pq.write_table(
        index.set_column(1, "box_id", pa.array([f"x{n}" for n in range(len(index))])),
        features / "index.parquet",
    )
    refused = here("run", config)
    assert refused.status == 2 and "has no row for" in refused.stderr


def test_what_does_not_go_with_features_from_elsewhere(tmp_path: Path, tiny_data: Path) -> None:
    config = write_config(tmp_path, tiny_data, [])
    with pytest.raises(ConfigError, match=r"features\.use: .*vit is not a feature store"):
        load_config(config)
    for change, message in (
        ("detector={train: [{dataset: scenes, split: train}]}", "there is no detector: remove it"),
        ("roi.variant=j2", "roi: it has no effect"),
        ("reid.branch.initial_weights=imagenet", r"reid\.branch\.initial_weights: write random"),
        ("features.dtype=float32", "remove dtype"),
        ("features.use=vit", "write the folder of a feature store"),
        ("reid=null", "give a reid section"),
        ("promote={tag: production}", "promote: it has no effect"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(config, [change])
