"""A sweep over drawn scenes: shared stages once, no image beyond them, failures alone, nothing twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from flows.cli import slots as command
from flows.cli.status import run_status
from flows.config.sections import Processors
from flows.errors import ConfigError, Failure, StageFailed
from flows.plan.states import Planned
from flows.report.study_page import render_study
from flows.run.processes import start_process
from flows.run.reach import in_use
from flows.run.records import read_records
from flows.run.stopping import sigterm_as_interrupt
from flows.stages.base import Stage
from flows.studies import schedule
from flows.studies.cells import Filling
from flows.studies.cost import START_SECONDS, Estimator
from flows.studies.loading import Loader
from flows.studies.nodes import Nodes
from flows.studies.running import run_study
from flows.studies.schedule import Slots, _on_slot, ignore_progress
from personsearch_core.data import decoding
from storage.local import LocalStore
from storage.opening import open_store
from storage.store import Artifact
from tests.flows.run.test_processes import is_gone, wait_for
from tests.flows.studies.sweeps import MakeHere, build, made_by, study_of, sweep

pytestmark = pytest.mark.usefixtures("in_this_process")

SETTINGS = ["roi.variant=j3,j4", "reid.lr=1e-3,3e-3", "reid.seed=0..1"]


@pytest.mark.slow
def test_eight_members_share_what_can_be_shared(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = decoding.read_file

    def counting(path: str) -> torch.Tensor:
        opened.append(path)
        return original(path)

    monkeypatch.setattr(decoding, "read_file", counting)
    two = sweep(config, ["roi.variant=j3,j4"], first := MakeHere())
    assert all(member.failure is None for member in two.members)
    assert (first.made["detector"], first.made["features"], first.made["detections"]) == (1, 2, 2)
    assert opened
    opened.clear()
    all_of_them = sweep(config, SETTINGS, then := MakeHere())
    assert len(all_of_them.members) == 8
    assert all(member.failure is None for member in all_of_them.members)
    assert set(then.made) == {"reid", "gallery", "evaluation"}
    assert then.made["reid"] == 8
    assert not opened
    sweep(config, SETTINGS, again := MakeHere())
    assert not again.made


def test_a_sweep_is_ranked_and_every_cell_names_its_artifact(config: Path, tmp_path: Path) -> None:
    study = study_of(config, "roi.variant=j3,j4", "reid.seed=0..1")
    loader = Loader()
    with made_by(MakeHere()):
        result = run_study(study, loader, choose_slots=lambda: Slots([None, None]), folder=tmp_path)
    (table,) = result.tables
    means = [row.cells["mAP"].value for row in table.rows]
    assert means == sorted(means, reverse=True) and {row.name for row in table.rows} == {"j3", "j4"}
    for row in table.rows:
        cell = row.cells["mAP"]
        metrics = [loader.store_of(study).manifest_of(*name.split("/")).metrics for name in cell.artifacts]
        assert cell.values == tuple(100 * found["mAP"] for found in metrics)
        assert len(cell.values) == 2 and cell.deviation is not None
    ranked = pq.read_table(tmp_path / "cells.parquet").to_pylist()
    assert [each["value"] for each in ranked if each["column"] == "mAP"] == means
    page = render_study(result)
    other = study_of(config, "reid.seed=77")
    nodes = Nodes.of(other.members.values(), loader)
    (reid,) = (node for node in nodes.missing if node.stage.kind == "reid")
    cost = Estimator(loader.store_of(other), gpu=False).cost(reid)
    assert cost.basis.endswith("of this store") and (cost.cpu_seconds or 0) > START_SECONDS
    assert page.count("<svg") == 1 and "chosen on the test set" in page and 'class="best"' in page


def test_a_failing_member_leaves_a_named_hole(config: Path) -> None:
    study = study_of(config, "reid.lr=2e-3,4e-3", "reid.seed=10..11")
    outcome = build(study, MakeHere(fail_seed=11))
    ok, failed, *_ = (member.failure for member in outcome.members)
    assert ok is None and failed is not None
    assert (failed.kind, failed.message) == ("refused", "reid: the loss is nan")
    assert ["evaluation" in member.artifacts for member in outcome.members] == [True, False] * 2
    (table,) = Filling(study, Loader()).tables(outcome.members)
    assert [len(row.cells["mAP"].values) for row in table.rows] == [1, 1]
    (table,) = Filling(study, Loader()).tables(outcome.members[1:2])
    assert "reid: the loss is nan" in str(table.rows[0].cells["mAP"].hole)


def test_a_member_that_cannot_be_planned_stops_no_other(config: Path) -> None:
    outcome = sweep(config, ["reid.seed=30", "reid.train.split=train,nosuch"], MakeHere())
    right, wrong = outcome.members
    assert "evaluation" in right.artifacts
    assert wrong.failure is not None
    assert "nosuch" in wrong.failure.message


def test_a_bug_in_one_build_stops_no_other(config: Path, tmp_path: Path) -> None:
    def broken(planned: Planned, store: LocalStore, artifacts: Mapping[str, Artifact]) -> Artifact:
        raise KeyError("bug")

    outcome = build(study_of(config), broken, tmp_path)
    assert outcome.members[0].failure == Failure("broke", "ingest:scenes: KeyError: 'bug'")


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (StageFailed(Failure("died", "killed")), 2),
        (ConnectionError("away"), 2),
        (StageFailed(Failure("broke", "bug")), 1),
    ],
)
def test_what_runs_retry_sweeps_retry(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    tries: int,
) -> None:
    monkeypatch.setattr(schedule, "RETRY_DELAYS", [0.0])
    tried = 0

    def failing(planned: Planned, store: LocalStore, artifacts: Mapping[str, Artifact]) -> Artifact:
        nonlocal tried
        tried += 1
        raise error

    outcome = build(study_of(config), failing, tmp_path, slots=1)
    assert tried == tries
    failure = outcome.members[0].failure
    assert failure is not None and failure.message == f"ingest:scenes: {error}"
    retried = [each.getMessage() for each in caplog.records if "retrying" in each.getMessage()]
    assert retried == [f"{failure.message}; retrying in 0 s"] * (tries - 1)


def test_a_sweep_is_on_record(config: Path) -> None:
    used: dict[str, set[str]] = {}

    def looking(planned: Planned, store: LocalStore, artifacts: Mapping[str, Artifact]) -> Artifact:
        used[planned.stage.kind] = {name.partition("/")[0] for name in in_use(store)}
        return make(planned, store, artifacts)

    make = MakeHere(fail_seed=41)
    build(study_of(config, "reid.seed=40..41"), looking, slots=1)
    # Another member waits for its turn with what it found there; gc must spare that, too.
    assert used["evaluation"] >= {"ingest", "detector", "features", "reid", "detections", "gallery"}
    store = open_store(str(config.parent / "store"))
    record = next(read_records(store.root))
    found = run_status(record)
    assert found["state"] == "failed"
    assert found["error"] == "reid.seed=41: reid: the loss is nan"
    assert {"reid", "gallery", "evaluation"} <= {name.partition(":")[0] for name in found["made"]}
    (failed,) = (stage for stage in record.stages if stage["state"] == "failed")
    assert record.failure is not None and record.failure.log == failed["log"]
    assert not in_use(store)


def test_sigterm_asks_running_stages_to_stop_and_keeps_what_is_known(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"

    def work_on(*_: object, stop: threading.Event, **__: object) -> object:
        started = start_process(
            "tests.flows.run.test_processes:sleep_with_a_helper",
            {"pids": str(pids)},
            log_path=tmp_path / "log",
        )
        return started.result(on_progress=ignore_progress, stop=stop)

    def ask_to_stop() -> None:
        while not pids.exists() or len(pids.read_text().split()) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(schedule, "make_in_process", work_on)
    threading.Thread(target=ask_to_stop, daemon=True).start()
    with sigterm_as_interrupt():
        outcome = build(study_of(config, "reid.seed=0..1"), None, tmp_path / "store")
    assert outcome.stopped
    assert all("asked to stop" in str(member.failure) for member in outcome.members)
    # What is killed with its group may take a moment to go.
    wait_for(lambda: all(is_gone(int(pid)) for pid in pids.read_text().split()))
    (record,) = read_records(tmp_path / "store")
    assert record.finished is not None


def test_a_wrong_member_is_refused_before_anything_is_made(config: Path) -> None:
    make = MakeHere()
    with pytest.raises(ConfigError, match="did you mean 'lr'"):
        sweep(config, ["reid.seed=20", "reid.lrr=1e-3"], make)
    assert not make.made


def test_a_slot_is_one_device() -> None:
    stage = Stage(
        name="detector", kind="detector", version=1, recipe={}, maker="", processors=Processors(devices=2)
    )
    ready = _on_slot(Planned(stage, "runs", ""), "cuda:1", 3)
    assert ready.stage.processors == Processors(device="cuda:1", devices=1, threads=3)
    fixed = replace(stage, processors=Processors(device="cpu", threads=2))
    assert _on_slot(Planned(fixed, "runs", ""), "cuda:1", 3).stage.processors == fixed.processors
    alone = replace(stage, alone=True)
    assert _on_slot(Planned(alone, "runs", ""), "cuda:1", 3).stage.processors == stage.processors


@pytest.mark.parametrize(
    ("parallel", "device", "gpus", "slots"),
    [
        (None, "auto", 2, ["cuda:0", "cuda:1"]),
        (3, "auto", 2, ["cuda:0", "cuda:1", "cuda:0"]),
        (None, "cuda:1", 2, [None]),
        (2, "cpu", 2, [None, None]),
        (1, "auto", 0, [None]),
    ],
)
def test_slots_are_the_gpus_that_are_visible(
    monkeypatch: pytest.MonkeyPatch, parallel: int | None, device: str, gpus: int, slots: list[str | None]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert command.slots(parallel, Processors(device=device)).devices == slots
