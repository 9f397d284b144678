"""Where a run finds its Prefect API, what it leaves, and what is said where it finds none."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from flows.errors import ConfigError, explain
from flows.run import prefect_api
from flows.run.embedded_api import IDLE_MINUTES, ApiFiles, embedded_api
from storage.locks import exclusive, is_held
from tests.forking import Program
from tests.prefect_database import copy_database

# A run that is killed in the middle of its only task.
STARTED_AHEAD = """
import os
os.environ.pop("PREFECT_API_URL", None)
from flows.run.embedded_api import ApiFiles, _if_at
from flows.run.prefect_api import api, own_place, start_ahead
from storage.locks import is_held
ahead = start_ahead()
with api(ahead):
    print(is_held(own_place().lock) == ahead.pid)
    print(start_ahead())
ahead.wait(60)
other = start_ahead()
print(_if_at(ApiFiles.of(own_place().folder.parent, "elsewhere"), other), other.returncode is not None)
"""

KILLED_RUN = """
import os, signal
from uuid import UUID
from flows.run.prefect_defaults import be_quiet
be_quiet()
from prefect import flow, task
from prefect.runtime import flow_run
from flows.run.prefect_api import api

@task
def die():
    os.kill(os.getpid(), signal.SIGKILL)

with api() as found:
    @flow(name="killed")
    def killed():
        found.watch_over(UUID(flow_run.id))
        die()
    killed()
"""

PLACE = """
from flows.run.prefect_api import own_place, start_ahead
start_ahead()  # as a run: it sets its defaults before Prefect is loaded
print(own_place().lock)
"""


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds:.0f} s"
        time.sleep(0.05)


def ask(url: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


@pytest.fixture
def home(prefect_api: str, prefect_database: Path, tmp_path: Path) -> Path:
    """A home folder with a database, beside the suite's API."""
    home = tmp_path / "home"
    copy_database(prefect_database, home)
    return home


def test_an_api_that_ends_at_its_start_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text(
        "#!/bin/sh\necho DatabaseError: file is not a database >&2\necho '  ^^^^' >&2\nexit 3\n"
    )
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(ConnectionError) as caught, embedded_api(ApiFiles.of(tmp_path, "some")):
        pass
    said = explain(caught.value) or ""
    assert "(exit status 3). Last output: DatabaseError: file is not a database (" in said
    assert not list(ApiFiles.of(tmp_path, "some").folder.glob("*.lease"))


def test_an_api_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.run.embedded_api._ANSWER_SECONDS", 0.2)
    monkeypatch.delenv(IDLE_MINUTES, raising=False)  # with 0, its end would be waited for
    place = ApiFiles.of(tmp_path, "some")
    # As of a process that is stopped: it holds its lock, and nothing listens to it.
    with exclusive(place.lock, what="the API"):
        place.write_address("http://127.0.0.1:9/api")
        message = rf"does not answer .* `kill {os.getpid()}`"
        with pytest.raises(ConnectionError, match=message), embedded_api(place):
            pass


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_a_wrong_idle_time_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(IDLE_MINUTES, text)
    message = rf"{IDLE_MINUTES}: '{text}' is not a number of minutes"
    with pytest.raises(ConfigError, match=message), embedded_api(ApiFiles.of(tmp_path, "some")):
        pass


def test_a_home_that_cannot_be_written_is_told_before_prefect_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(ConfigError, match=r"cannot be written \(File exists\): set PREFECT_HOME to a folder"):
        prefect_api.start_ahead()


@pytest.mark.slow
def test_an_api_is_shared_replaced_when_killed_and_ends_with_its_home(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(home))
    monkeypatch.delenv(IDLE_MINUTES, raising=False)
    place = ApiFiles.of(home, "one")
    with embedded_api(place) as first, embedded_api(place) as second:
        assert first.url == second.url
        process = is_held(place.lock)
    assert process is not None and is_held(place.lock) == process, "it stays for the next run"
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: is_held(place.lock) is None)

    monkeypatch.setenv(IDLE_MINUTES, "0")
    with embedded_api(place) as third:
        assert third.url != first.url
        assert is_held(place.lock) not in (None, process)
    assert is_held(place.lock) is None
    assert not list(place.folder.iterdir()), "what it leaves is an empty folder, and Prefect's database"

    monkeypatch.delenv(IDLE_MINUTES)
    stale = ApiFiles.of(home, "other")
    for file in (stale.lock, stale.address, stale.log, stale.folder / "other.1.lease"):
        file.write_text("1")
    with embedded_api(place):
        process = is_held(place.lock)
        assert process is not None
        assert not list(place.folder.glob("other.*")), "what a killed API of other settings left is cleared"
    shutil.rmtree(home)
    wait_until(lambda: not Path(f"/proc/{process}/exe").exists())


@pytest.mark.slow
def test_an_api_that_is_started_ahead_is_the_one_of_the_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(home))
    monkeypatch.setenv(IDLE_MINUTES, "0.01")
    printed, error = tmp_path / "printed", tmp_path / "error"
    assert Program(exec, STARTED_AHEAD, {}, output=printed, error=error).wait() == 0, error.read_text()
    assert printed.read_text().splitlines() == ["True", "None", "None True"], error.read_text()


def test_runs_of_the_suite_share_its_api(prefect_api: str, tmp_path: Path) -> None:
    """Each that has other settings starts an API of its own, which takes ten seconds."""
    printed = tmp_path / "printed"
    assert Program(exec, PLACE, {}, output=printed, error=tmp_path / "error").wait() == 0
    assert is_held(Path(printed.read_text().strip())) is not None


@pytest.mark.slow
def test_a_killed_run_is_marked_as_crashed(prefect_api: str, tmp_path: Path) -> None:
    error = tmp_path / "error"
    killed = Program(exec, KILLED_RUN, {"__name__": "__main__"}, output=tmp_path / "printed", error=error)
    assert killed.wait() == -signal.SIGKILL, error.read_text()

    def states(of: str) -> list[str]:
        found = ask(prefect_api, f"/{of}/filter", {"flows": {"name": {"any_": ["killed"]}}})
        return [run["state_type"] for run in found]

    wait_until(lambda: states("flow_runs") == ["CRASHED"])
    wait_until(lambda: set(states("task_runs")) <= {"CRASHED"})


def test_the_loopback_is_no_matter_for_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.delenv("no_proxy", raising=False)
    with prefect_api._loopback_without_proxy():
        for host in ("127.0.0.1", "intranet"):
            assert urllib.request.proxy_bypass(host)
    assert (os.environ["NO_PROXY"], os.environ.get("no_proxy")) == ("intranet", None)


def test_no_link_leads_to_a_page_that_is_not_served(prefect_api: str) -> None:
    said: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    @flow
    def nothing() -> None:
        """No tasks."""

    listener = Listening()
    logging.getLogger("prefect.flow_runs").addHandler(listener)
    try:
        nothing()
    finally:
        logging.getLogger("prefect.flow_runs").removeHandler(listener)
    assert any("Beginning flow run" in line for line in said)
    assert not any(prefect_api.removesuffix("/api") in line for line in said)
