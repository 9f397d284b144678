"""A run is killed or stopped in a training; the same command again ends with the same bytes.

tests/campaigns/kill_campaign.py kills at random moments.
"""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster

from flows.errors import EXIT_STATUS
from storage.local import LocalStore
from tests.campaigns.kill_campaign import digests, left_behind
from tests.end_to_end.commands import begin, here
from tests.end_to_end.conftest import TinyRun
from tests.forking import Program

TRAININGS = {"detector": "detector.safetensors", "reid": "branch.safetensors"}
# After each step, so that a signal comes long before the last one.
OFTEN = ("--set", "run.checkpoint_seconds=0.001")


def wait_for(condition: Callable[[], bool], process: Program, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def checkpoints(store: Path, kind: str) -> list[Path]:
    return list((store / ".work" / kind).glob("*/checkpoints/*.pt"))


@pytest.fixture
def scheduler() -> Iterator[str]:
    """The address of a Dask scheduler that outlives the runs."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
def test_a_run_that_is_killed_and_stopped_in_its_trainings_ends_with_the_same_bytes(
    tmp_path: Path, tiny_run: TinyRun, scheduler: str
) -> None:
    """With what Dask workers read and compute, which the undisturbed run does without them."""
    store = tmp_path / "store"
    dask = ("--set", f"run.dask={scheduler}")
    words = ["run", tiny_run.config, "--store", store, *OFTEN, *dask, "--until", "reid"]
    log = tmp_path / "log"
    for kind in TRAININGS:
        assert end_while_making(kind, words, store, log, signal.SIGKILL) == -signal.SIGKILL
        plan = here("plan", *words[1:], json_to=tmp_path / "plan.json")
        assert plan.states[kind] == "resumes"
    assert end_while_making("reid", words, store, log, signal.SIGTERM) == EXIT_STATUS["interrupted"]
    said = log.read_text().splitlines()[-1]
    assert re.fullmatch(
        r"error: stopped; reid is saved at step \d+( of \d+)?; run the same command to go on", said
    ), log.read_text()
    assert "Traceback" not in log.read_text()
    again = here(*words, json_to=tmp_path / "again.json")
    assert again.status == 0, again.stderr
    for kind, name in TRAININGS.items():
        assert (again.path(kind) / name).read_bytes() == (tiny_run.outcome.path(kind) / name).read_bytes()
        assert not (store / ".work" / kind).exists() or not list((store / ".work" / kind).iterdir())
    assert digests(LocalStore(store)).items() <= digests(LocalStore(tiny_run.store)).items()
    shutil.rmtree(store)


def end_while_making(
    kind: str, words: list[object], store: Path, log_path: Path, sent: signal.Signals
) -> int:
    """Run until the training has a new checkpoint, send the signal, and return the exit status."""
    before = set(checkpoints(store, kind))
    log_path.unlink(missing_ok=True)
    run = begin(*words, output=log_path, error=log_path)
    wait_for(lambda: bool(set(checkpoints(store, kind)) - before), run)
    started = psutil.Process(run.pid).children(recursive=True)
    assert started, "a stage is made in a process of its own"
    run.send_signal(sent)
    status = run.wait()
    assert left_behind(started, LocalStore(store)) == []
    assert not list((store / kind).glob("*")), "nothing half-made is visible"
    return status
