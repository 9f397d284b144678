"""What is kept of a run that was interrupted, and how its command ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli import main
from flows.cli.status import run_status
from flows.errors import EXIT_STATUS, Failure, FailureKind, Interrupted, StageError, failure_of
from flows.plan.states import Planned
from flows.run.planning import Outcome
from flows.run.records import RunRecord, new_record_path, read_records
from flows.stages.base import Stage
from storage import durable


def test_a_run_that_broke_off_was_stopped_and_its_log_is_named(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / ".runs" / "now.json", "config.yaml")
    stage = Stage(name="reid", kind="reid", version=1, recipe={}, maker="")
    record.begin(Planned(stage, "runs", "never made"), tmp_path / "reid.log")
    record.end()
    (read,) = read_records(tmp_path)
    found = run_status(read)
    assert (found["state"], found["log"]) == ("stopped", None)  # it had not come to a log
    assert "reid: the run was interrupted" in found["error"]
    (tmp_path / "reid.log").write_text("what it said\n")
    assert run_status(read)["log"] == str(tmp_path / "reid.log")


def test_runs_of_one_second_are_listed_newest_first(tmp_path: Path) -> None:
    configs = [f"{number}.yaml" for number in range(20)]
    for config in configs:
        RunRecord(new_record_path(tmp_path), config).end()
    assert [record.config for record in read_records(tmp_path)] == configs[::-1]


def test_the_first_record_of_a_store_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    flush = durable.flush

    def watched(path: Path) -> None:
        flush(path)
        flushed.append(path)

    monkeypatch.setattr(durable, "flush", watched)
    RunRecord(tmp_path / "store" / ".runs" / "now.json", "config.yaml").end()
    assert {tmp_path, tmp_path / "store", tmp_path / "store" / ".runs"} <= {*flushed}


@pytest.mark.parametrize("kind", EXIT_STATUS)
def test_a_failure_arrives_unchanged_on_the_screen(
    kind: FailureKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = Failure(kind, "reid: no", "reid.log")
    record = RunRecord(tmp_path / ".runs" / "now.json", "config.yaml", failure=failure)
    record.end()
    (read,) = read_records(tmp_path)
    assert read.failure == failure
    outcome = Outcome([], 0.0, failure=read.failure)
    monkeypatch.setattr(main, "app", lambda **_: outcome.raise_error())
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == EXIT_STATUS[kind]
    log = "" if kind == "interrupted" else "; log: reid.log"
    assert capsys.readouterr().err == f"error: reid: no{log}\n"


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (StageError("no"), "refused", 2),
        (FileNotFoundError(2, "no"), "refused", 2),
        (ConnectionRefusedError(111, "no"), "unreachable", 2),
        (Interrupted("no"), "interrupted", 75),
    ],
)
def test_every_error_has_one_kind(error: Exception, kind: FailureKind, status: int) -> None:
    failure = failure_of(error)
    assert failure == Failure(kind, "no") and failure.exit_status == status
    assert failure_of(KeyError("a bug")) is None


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        ("StageBroke", "broke"),
        ("StageDied", "died"),
        ("Interrupted", "interrupted"),
        ("TimeoutError", "interrupted"),
        (None, "refused"),
    ],
)
def test_the_records_of_older_versions_are_read(
    failure: str | None, kind: FailureKind, tmp_path: Path
) -> None:
    """Until Failure, a record had the message and the name of its class."""
    old = {
        "config": "a.yaml",
        "started": "2026-01-02T03:04:05+00:00",
        "pid": 1,
        "host": "a",
        "stages": [{"stage": "reid", "state": "failed", "key": "k", "error": "reid: no", "log": None}],
        "error": "reid: no",
        "failure": failure,
        "finished": "2026-01-02T03:04:06+00:00",
    }
    (tmp_path / ".runs").mkdir()
    (tmp_path / ".runs" / "a.json").write_text(json.dumps(old))
    (tmp_path / ".runs" / "b.json").write_text(json.dumps(old | {"error": None, "failure": None}))
    without, read = read_records(tmp_path)
    assert read.failure == Failure(kind, "reid: no") and without.failure is None
    found = run_status(read)
    state = "stopped" if kind == "interrupted" else "failed"
    assert (found["state"], found["error"], found["failure"]["kind"]) == (state, "reid: no", kind)
    assert run_status(without)["state"] == "finished"
