"""Stages in processes of their own: what they say arrives, and none outlives its parent."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.errors import DISK_FULL, Failure, FailureKind, Interrupted, StageFailed
from flows.run import processes
from flows.run.child import Reporter
from flows.run.processes import start_process
from flows.run.template import Template
from storage.errors import StorageError


def add(task: dict[str, Any], reporter: Reporter) -> int:
    for done in range(1, 4):
        reporter.progress(done, 3, loss=0.5)
    return task["a"] + task["b"]


def refuse(task: dict[str, Any], reporter: Reporter) -> None:
    raise StorageError("row 3 of x is damaged")


def fill_the_disk(task: dict[str, Any], reporter: Reporter) -> None:
    raise OSError(28, "No space left on device", "/full/file")


def find_no_service(task: dict[str, Any], reporter: Reporter) -> None:
    raise ConnectionError("no answer")


def break_down(task: dict[str, Any], reporter: Reporter) -> None:
    raise KeyError("bug")


def die(task: dict[str, Any], reporter: Reporter) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_with_a_helper(task: dict[str, Any], reporter: Reporter) -> None:
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    Path(task["pids"]).write_text(f"{os.getpid()} {helper.pid}")
    while not reporter.should_stop():
        time.sleep(0.05)
    raise Interrupted("stopped at step 3")


def never_stop(task: dict[str, Any], reporter: Reporter) -> None:
    reporter.progress(1, 1)
    time.sleep(120)


def where_it_runs(task: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    return {
        "template": os.getppid(),
        "loaded": "wave" in sys.modules,
        "folder": str(Path.cwd()),
        "told": os.environ.get("PERSONSEARCH_TOLD"),
    }


def collector(task: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    return {"on": gc.isenabled(), "frozen": gc.get_freeze_count(), "looked_through": len(gc.get_objects())}


def outlive_the_template(task: dict[str, Any], reporter: Reporter) -> str:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(0.2)
    return "done"


def stop_slowly(task: dict[str, Any], reporter: Reporter) -> None:
    Path(task["pids"]).write_text(str(os.getpid()))
    while not reporter.should_stop():
        time.sleep(0.05)
    time.sleep(1)
    Path(task["checkpoint"]).write_text("the last step")
    raise Interrupted("stopped at a checkpoint")


def terminate_the_template(task: dict[str, Any], reporter: Reporter) -> None:
    os.kill(os.getppid(), signal.SIGTERM)
    stop_slowly(task, reporter)


def ignore(*_: object, **__: object) -> None:
    """Progress that is not looked at."""


HERE = "tests.flows.run.test_processes"


def run(function: str, folder: Path, **task: Any) -> Any:
    return start_process(f"{HERE}:{function}", task, log_path=folder / "log").result(on_progress=ignore)


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_result_and_its_progress_arrive(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    started = start_process(f"{HERE}:add", {"a": 2, "b": 3}, log_path=tmp_path / "log")
    result = started.result(on_progress=lambda done, total, **metrics: seen.append((done, total)))
    assert result == 5
    assert seen[-1] == (3, 3)


def test_what_one_process_needs_is_loaded_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TEMPLATE", Template())

    def ask(*imports: str) -> dict[str, Any]:
        target = f"{HERE}:where_it_runs"
        started = start_process(target, {}, log_path=tmp_path / "log", imports=imports)
        return dict(started.result(on_progress=ignore))

    first = ask()
    assert not first["loaded"] and first["told"] is None
    second = ask("wave", "a module that cannot be imported")
    assert second["loaded"] and second["template"] == first["template"]
    monkeypatch.setenv("PERSONSEARCH_TOLD", "yes")
    monkeypatch.chdir(tmp_path)
    assert ask() == second | {"told": "yes", "folder": str(tmp_path)}


def test_a_process_looks_for_garbage_of_its_own_alone(tmp_path: Path) -> None:
    collector = run("collector", tmp_path)
    assert collector["on"] and collector["frozen"] > 10_000 > collector["looked_through"]


def test_a_template_that_is_killed_is_replaced(tmp_path: Path) -> None:
    assert run("outlive_the_template", tmp_path) == "done"
    assert run("add", tmp_path, a=2, b=3) == 5


def test_a_scheduler_that_signals_every_process_of_a_job_loses_no_checkpoint(tmp_path: Path) -> None:
    pids, checkpoint = tmp_path / "pids", tmp_path / "checkpoint"
    task = {"pids": str(pids), "checkpoint": str(checkpoint)}
    started = start_process(f"{HERE}:terminate_the_template", task, log_path=tmp_path / "log")
    wait_for(lambda: pids.exists() and bool(pids.read_text()))
    started.stop()
    assert checkpoint.read_text() == "the last step" and is_gone(int(pids.read_text()))


def test_a_template_goes_on_when_a_process_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TEMPLATE", Template())
    task = {"pids": str(tmp_path / "pids"), "checkpoint": str(tmp_path / "checkpoint")}
    forgotten = start_process(f"{HERE}:stop_slowly", task, log_path=tmp_path / "log")
    pid = forgotten.child.pid
    assert pid is not None
    forgotten.child.close()
    wait_for(lambda: not psutil.pid_exists(pid))
    first, second = (run("where_it_runs", tmp_path)["template"] for _ in range(2))
    assert first == second == psutil.Process(first).pid


def test_the_log_says_why_no_process_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no memory left' >&2\n")
    python.chmod(0o755)
    monkeypatch.setattr(processes, "TEMPLATE", Template())
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(StageFailed, match=r"the process of .*:add could not be started") as raised:
        run("add", tmp_path, a=2, b=3)
    assert raised.value.failure.log == str(tmp_path / "log")
    assert (tmp_path / "log").read_text() == "no memory left\n"


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("refuse", "refused", "row 3 of x is damaged"),
        ("fill_the_disk", "refused", DISK_FULL),
        ("find_no_service", "unreachable", "no answer"),
        ("break_down", "broke", "KeyError: 'bug'"),
        ("die", "died", f"the process of {HERE}:die ended by signal SIGKILL"),
    ],
)
def test_each_end_is_told_apart(tmp_path: Path, function: str, kind: FailureKind, message: str) -> None:
    with pytest.raises(StageFailed) as raised:
        run(function, tmp_path)
    assert raised.value.failure == Failure(kind, message, str(tmp_path / "log"))
    assert ("Traceback" in (tmp_path / "log").read_text()) == (kind != "died")


def test_a_time_limit_stops_the_whole_group_at_a_checkpoint(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    run("add", tmp_path, a=1, b=1)  # the template is up then: the limit is for the stage alone
    with pytest.raises(StageFailed, match="time limit") as raised:
        start_process(f"{HERE}:sleep_with_a_helper", {"pids": str(pids)}, log_path=tmp_path / "log").result(
            on_progress=ignore, timeout_seconds=3
        )
    assert raised.value.failure.kind == "interrupted"
    for pid in map(int, pids.read_text().split()):
        wait_for(lambda pid=pid: is_gone(pid))


def test_a_request_to_stop_that_comes_as_soon_as_the_fork_is_not_lost(tmp_path: Path) -> None:
    for each in range(10):
        started = start_process(
            f"{HERE}:sleep_with_a_helper", {"pids": str(tmp_path / f"{each}")}, log_path=tmp_path / "log"
        )
        started.child.signal(signal.SIGTERM)
        with pytest.raises(StageFailed, match="stopped at step 3"):
            started.result(on_progress=ignore, timeout_seconds=5)


def test_a_process_that_is_not_started_yet_is_stopped_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TEMPLATE", Template())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "takes_long.py").write_text("import time; time.sleep(10)")
    pids = tmp_path / "pids"
    task = {"pids": str(pids)}
    started = start_process(
        f"{HERE}:sleep_with_a_helper", task, log_path=tmp_path / "log", imports=["takes_long"]
    )
    before = time.monotonic()
    started.stop()
    assert time.monotonic() - before < 5 and not pids.exists()
    processes.TEMPLATE.end()


def test_kill_9_of_the_parent_ends_the_child_and_its_helpers(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = textwrap.dedent(f"""
        from pathlib import Path
        from flows.run.processes import start_process
        start_process("{HERE}:sleep_with_a_helper", {{"pids": {str(pids)!r}}},
                      log_path=Path({str(tmp_path / "log")!r})).result(on_progress=print)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script])
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    children = [int(pid) for pid in pids.read_text().split()]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for pid in children:
        wait_for(lambda pid=pid: is_gone(pid))


def hang_up(tmp_path: Path, before: str = "") -> tuple[subprocess.Popen[bytes], Path]:
    """A run in the way of `run_config`, whose terminal is closed while its stage works."""
    pids, checkpoint = tmp_path / "pids", tmp_path / "checkpoint"
    script = textwrap.dedent(f"""
        import signal
        from pathlib import Path
        from flows.run.processes import start_process
        from flows.run.stopping import sigterm_as_interrupt
        {before}
        def terminated(*_):  # as Prefect has it while a flow runs
            raise SystemExit(143)
        with sigterm_as_interrupt():
            signal.signal(signal.SIGTERM, terminated)
            task = dict(pids={str(pids)!r}, checkpoint={str(checkpoint)!r})
            log_path = Path({str(tmp_path / "log")!r})
            start_process("{HERE}:stop_slowly", task, log_path=log_path).result(on_progress=print)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script])
    wait_for(lambda: pids.exists() and bool(pids.read_text()))
    parent.send_signal(signal.SIGHUP)
    return parent, checkpoint


def test_a_closed_terminal_waits_for_the_last_checkpoint(tmp_path: Path) -> None:
    parent, checkpoint = hang_up(tmp_path)
    assert parent.wait(30) == 143 and checkpoint.read_text() == "the last step"


def test_a_run_under_nohup_goes_on_without_its_terminal(tmp_path: Path) -> None:
    parent, checkpoint = hang_up(tmp_path, "signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    with pytest.raises(subprocess.TimeoutExpired):
        parent.wait(1)
    assert not checkpoint.exists()
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 143 and checkpoint.read_text() == "the last step"


def test_a_flow_that_prefect_cancels_does_not_wait_until_its_runner_kills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert processes.CANCEL_GRACE_SECONDS < 30 < processes.STOP_GRACE_SECONDS
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "1")
    monkeypatch.setattr(processes, "CANCEL_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(processes, "STOP_GRACE_SECONDS", 30.0)
    cancelled: list[float] = []

    def cancel(*_: object, **__: object) -> None:
        cancelled.append(time.monotonic())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_process(f"{HERE}:never_stop", {}, log_path=tmp_path / "log").result(on_progress=cancel)
    assert time.monotonic() - cancelled[0] < 15
