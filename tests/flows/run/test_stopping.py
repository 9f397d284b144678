"""Ctrl-C, SIGTERM and a closed terminal end a run with what is saved and how to go on."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from flows.errors import EXIT_STATUS, Interrupted, failure_of
from flows.plan.states import make_plan
from flows.run.records import RunRecord
from flows.run.running import _saved
from flows.run.stopping import stoppable
from flows.stages.base import Stage, last_checkpoint
from storage.local import LocalStore


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
def test_a_signal_ends_a_run_with_what_is_saved(tmp_path: Path, sent: signal.Signals, saved: bool) -> None:
    store = LocalStore(tmp_path / "store")
    stage = Stage("reid", "reid", version=1, recipe={}, maker="nobody:make", resume_point=last_checkpoint)
    plan = make_plan([stage], store)
    (planned,) = plan
    assert planned.identity is not None
    if saved:
        work = store.place.work_path_of("reid", planned.identity.key)
        work.mkdir(parents=True)
        (work / "step-40.pt").touch()
    record = RunRecord(tmp_path / "record.json", "demo.yaml")
    record.begin(planned, None)
    before = signal.getsignal(sent)
    with pytest.raises(Interrupted) as stopped, stoppable(lambda: _saved(record, plan, store)):
        os.kill(os.getpid(), sent)
        time.sleep(30)
    kept = "reid is saved at step 40" if saved else "reid has no checkpoint yet"
    assert str(stopped.value) == f"stopped; {kept}; run the same command to go on"
    failure = failure_of(stopped.value)
    assert failure is not None and failure.exit_status == EXIT_STATUS["interrupted"]
    assert signal.getsignal(sent) is before


def test_outside_the_main_thread_signals_stay_as_they_are() -> None:
    entered = []

    def work() -> None:
        with stoppable():
            entered.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [before]
