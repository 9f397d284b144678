"""Trackers are told of a run in the order of its stages; one that fails or hangs costs a warning."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from flows.config.loading import load_config
from flows.config.models import Config
from flows.errors import ConfigError
from flows.run.records import RunRecord
from flows.tracking import running
from flows.tracking.mlflow import MlflowTracker
from flows.tracking.protocol import Curve, TrackedRun, TrackedStage
from flows.tracking.running import Trackers, params_of
from tests.flows.tracking.mlflow_server import keeping_server

RUN = TrackedRun(
    "20260101T000000-abcdef", "night.yaml", "/store", {f"reid.p{n}": "1" * 600 for n in range(150)}
)


def config_of(tmp_path: Path, trackers: Any) -> Config:
    body = {
        "store": "store",
        "datasets": {"a": {"adapter": "prw", "root": str(tmp_path)}},
        "detector": {"train": [{"dataset": "a", "split": "train"}]},
        "run": {"trackers": trackers},
    }
    path = tmp_path / "night.yaml"
    path.write_text(yaml.safe_dump(body))
    return load_config(path)


def a_stage(name: str = "reid", points: int = 2500) -> TrackedStage:
    def curves() -> Iterator[Curve]:
        yield Curve("loss", range(points), [1.0] * points)

    metrics = {"mAP": 0.5} | {f"m{n}": 1.0 for n in range(999)}
    return TrackedStage(name, f"{name.partition(':')[0]}/abc", True, metrics, curves)


def test_mlflow_gets_params_metrics_curves_keys_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    page = tmp_path / "report.html"
    page.write_text("<html>")
    with keeping_server() as (url, kept):
        tracker = MlflowTracker(uri=f"{url}/", experiment="nights")
        tracker.start(RUN)
        tracker.stage(a_stage("evaluation:prw", points=0))
        tracker.stage(a_stage())
        tracker.end("finished", page)
    assert kept.authorization == "Bearer secret"
    assert kept.bodies("experiments/create") == [{"name": "nights"}]
    (begun,) = kept.bodies("runs/create")
    assert begun["experiment_id"] == "7" and {"key": "personsearch.run", "value": RUN.name} in begun["tags"]
    logged = kept.bodies("log-batch")
    assert sum(len(each.get("params", [])) for each in logged) == 150
    metrics = [metric for each in logged for metric in each.get("metrics", [])]
    assert sum(metric["key"] == "reid/history/loss" for metric in metrics) == 2500
    assert {"evaluation/prw/mAP", "reid/mAP", "reid/m998"} < {metric["key"] for metric in metrics}
    tags = [tag for each in logged for tag in each.get("tags", [])]
    assert {"key": "artifact.evaluation.prw", "value": "evaluation/abc"} in tags
    assert kept.calls[-2] == ("/api/2.0/mlflow-artifacts/artifacts/7/r1/artifacts/report.html", b"<html>")
    assert kept.bodies("runs/update")[0]["status"] == "FINISHED"


def test_a_report_that_the_server_does_not_take_still_ends_the_run(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<html>")
    with keeping_server() as (url, kept):
        kept.refused = {"artifacts"}
        tracker = MlflowTracker(uri=url)
        tracker.start(RUN)
        with pytest.raises(ValueError, match=r"report\.html: status 400: .*disk is full"):
            tracker.end("failed", page)
    assert kept.bodies("runs/update")[0]["status"] == "FAILED"


def test_an_experiment_that_another_run_has_just_made_is_taken() -> None:
    with keeping_server() as (url, kept):
        kept.refused = {"experiments/create"}
        MlflowTracker(uri=url, experiment="Anna's nights & days").start(RUN)
    assert kept.bodies("experiments/get-by-name") == [{"experiment_name": ["Anna's nights & days"]}]
    assert kept.bodies("runs/create")[0]["experiment_id"] == "9"


def test_what_mlflow_refuses_is_told_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with keeping_server() as (url, kept):
        kept.refused = {"runs/create"}
        with pytest.raises(ValueError, match=r"127\.0\.0\.1: .*runs/create: status 400: .*database is gone"):
            MlflowTracker(uri=url).start(RUN)
    with pytest.raises(ValueError, match=r"127\.0\.0\.1: .*refused"):
        MlflowTracker(uri=url).start(RUN)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for wrong in (None, "mlruns", "sqlite:///runs.db"):
        with pytest.raises(ValueError, match="give the URL of an MLflow server"):
            MlflowTracker(uri=wrong)


class Sink:
    """Keeps what it is told; fails at one of its calls, or hangs there."""

    def __init__(
        self,
        fails_at: str = "",
        hangs: threading.Event | None = None,
        error: BaseException | None = None,
    ) -> None:
        self.told: list[Any] = []
        self.fails_at, self.hangs, self.error = fails_at, hangs, error or RuntimeError("no space left")

    def start(self, run: TrackedRun) -> None:
        self._hear("start", run.config)

    def stage(self, stage: TrackedStage) -> None:
        self._hear(
            "stage", (stage.name, stage.artifact, stage.built, dict(stage.metrics), list(stage.curves()))
        )

    def end(self, status: str, report: Path | None) -> None:
        self._hear("end", (status, report))

    def _hear(self, call: str, what: Any) -> None:
        if call == self.fails_at:
            if self.hangs is not None:
                self.hangs.wait()
            raise self.error
        self.told.append(what)


def artifact(tmp_path: Path, kind: str, metrics: dict[str, Any]) -> Any:
    path = tmp_path / kind
    path.mkdir(exist_ok=True)
    name = f"{kind}/k1"
    return SimpleNamespace(
        kind=kind, key="k1", name=name, path=path, manifest=SimpleNamespace(metrics=metrics)
    )


def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sinks: dict[str, Sink]) -> RunRecord:
    """A run of two stages with a report, told to the sinks."""
    config = config_of(tmp_path, []).model_copy()
    sections = tuple(SimpleNamespace(name=name, options={}) for name in sinks)
    config = config.model_copy(update={"run": config.run.model_copy(update={"trackers": sections})})
    monkeypatch.setattr(running, "load_tracker", lambda name: lambda: sinks[name])
    record = RunRecord(tmp_path / "20260101T000000-abcdef.json", "night.yaml")
    record.stages = [{"stage": "reid", "state": "made"}, {"stage": "report", "state": "cached"}]
    trained = artifact(
        tmp_path, "reid", {"mAP": 0.5, "rows": 3, "bad": float("nan"), "shape": [1], "done": True}
    )
    table = pa.table({"step": range(2501), "loss": [0.5] * 2501, "rare": [None] * 2500 + [1.0]})
    pq.write_table(table, trained.path / "history.parquet")
    trackers = Trackers(config, record)
    trackers.update({"reid": trained})
    trackers.end({"reid": trained, "report": artifact(tmp_path, "report", {})}, "finished")
    return record


def test_a_tracker_hears_of_each_stage_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Sink()
    record = tell(tmp_path, monkeypatch, {"one": sink})
    began, reid, report, ended = sink.told
    assert began == "night.yaml" and reid[:4] == ("reid", "reid/k1", True, {"mAP": 0.5, "rows": 3.0})
    loss, rare = reid[4]
    assert len(loss.steps) <= running.MOST_POINTS + 1 and loss.steps[-1] == 2500 and rare.steps == [2500]
    assert report[:3] == ("report", "report/k1", False)
    assert ended == ("finished", tmp_path / "report" / "report.html") and not record.warnings


@pytest.mark.parametrize("call", ["start", "stage", "end"])
def test_a_tracker_that_fails_costs_one_warning_and_the_others_go_on(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Sink()
    record = tell(tmp_path, monkeypatch, {"broken": Sink(call), "other": other})
    (warning,) = record.warnings
    assert warning.startswith(
        "run.trackers: broken: RuntimeError: no space left; this run goes on without it"
    )
    assert len(other.told) == 4


def test_a_tracker_that_exits_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tell(tmp_path, monkeypatch, {"rude": Sink("stage", error=SystemExit(3))})
    assert record.warnings == ["run.trackers: rude: SystemExit: 3; this run goes on without it"]


def test_a_tracker_that_hangs_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LIMIT_SECONDS", 0.2)
    freed = threading.Event()
    record = tell(tmp_path, monkeypatch, {"slow": Sink("stage", freed)})
    freed.set()
    (warning,) = record.warnings
    assert "slow: it took longer than 0.2 s" in warning


def test_trackers_are_checked_when_the_config_is_read(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"name": "mlflow", "options": {"uri": "http://localhost:1"}})
    assert config.run.trackers[0].name == "mlflow"
    with pytest.raises(ConfigError, match=r"there is no tracker 'mlfow'; did you mean 'mlflow'"):
        config_of(tmp_path, {"name": "mlfow"})
    with pytest.raises(ConfigError, match=r"tracker 'mlflow': options: .*'url'; it takes: uri, experiment"):
        config_of(tmp_path, {"name": "mlflow", "options": {"url": "x"}})


def test_params_are_the_fields_that_may_change_results(tmp_path: Path) -> None:
    params = params_of(config_of(tmp_path, []))
    assert params["detector.train.0.split"] == "train" and params["roi.variant"] == "j3"
    assert not any(name.startswith(("run.", "store")) or name.endswith(".root") for name in params)
