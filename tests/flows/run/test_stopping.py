"""Ctrl-C ends a run with what is saved and how to go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.errors import Interrupted
from flows.plan.states import make_plan
from flows.run.records import RunRecord
from flows.run.running import _stopped_by_hand
from flows.stages.base import Stage, last_checkpoint
from storage.local import LocalStore


@pytest.mark.parametrize("saved", [True, False])
def test_ctrl_c_says_what_is_saved(tmp_path: Path, saved: bool) -> None:
    store = LocalStore(tmp_path / "store")
    stage = Stage("reid", "reid", version=1, recipe={}, maker="nobody:make", resume_point=last_checkpoint)
    plan = make_plan([stage], store)
    (planned,) = plan
    assert planned.identity is not None
    if saved:
        work = store.work_path_of("reid", planned.identity.key)
        work.mkdir(parents=True)
        (work / "step-40.pt").touch()
    record = RunRecord(tmp_path / "record.json", "demo.yaml")
    record.begin(planned, None)
    with pytest.raises(Interrupted) as stopped, _stopped_by_hand(record, plan, store):
        raise KeyboardInterrupt
    kept = "reid is saved at step 40" if saved else "reid has no checkpoint yet"
    assert str(stopped.value) == f"stopped; {kept}; run the same command to go on"
