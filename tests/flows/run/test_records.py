"""What is kept of a run that broke off, and how its command ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli.status import run_status
from flows.errors import Interrupted, StageBroke, StageDied, StageError
from flows.plan.states import Planned
from flows.run.records import RunRecord, read_records
from flows.run.running import Outcome
from flows.stages.base import Stage


def test_a_run_that_broke_off_has_failed_and_its_log_is_named(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / ".runs" / "now.json", "config.yaml")
    stage = Stage(name="reid", kind="reid", version=1, recipe={}, maker="")
    record.begin(Planned(stage, "runs", "never made"), tmp_path / "reid.log")
    record.end()
    (read,) = read_records(tmp_path)
    found = run_status(read)
    assert (found["state"], found["log"]) == ("failed", None)  # it had not come to a log
    assert "reid: the run broke off" in found["error"]
    (tmp_path / "reid.log").write_text("what it said\n")
    assert run_status(read)["log"] == str(tmp_path / "reid.log")


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        ("StageBroke", StageBroke),
        ("StageDied", StageDied),
        ("Interrupted", Interrupted),
        ("TimeoutError", Interrupted),
        (None, StageError),
    ],
)
def test_how_a_stage_failed_decides_how_the_command_ends(
    failure: str | None, raised: type[Exception]
) -> None:
    with pytest.raises(raised, match="reid: no"):
        Outcome([], 0.0, error="reid: no", failure=failure).raise_error()
