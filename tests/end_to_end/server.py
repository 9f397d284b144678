"""A Prefect server and a worker for the tests, as docs/operations.md sets them up."""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.forking import Program
from tests.pages import PROJECT, Block, Page, Shell
from tests.prefect_database import copy_database

NO_VALUES: Mapping[str, str] = {}


def free_port() -> int:
    """A free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A running server; `environment` is that of its commands."""

    url: str
    environment: dict[str, str]

    def prefect(self, *words: str, **variables: str) -> str:
        """Run the `prefect` command line and return what it printed."""
        done = self.try_prefect(*words, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def documented(self, command: str, values: Mapping[str, str] = NO_VALUES) -> str:
        """Run a command of docs/operations.md with a reader's own values, and return what it printed."""
        section = Page.of("operations.md").section("A server, a worker, a schedule")
        assert command in [each for block in section.blocks() for each in block.commands()]
        return Shell(**self.environment).run(Block(command).replaced(values))

    def try_prefect(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the `prefect` command line, which may fail."""
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            for name, value in (self.environment | variables).items():
                patch.setenv(name, value)
            output, error = Path(folder) / "stdout", Path(folder) / "stderr"
            status = Program(_prefect, words, output=output, error=error).wait(120)
            return subprocess.CompletedProcess(words, status, output.read_text(), error.read_text())

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """The flow runs of a deployment, as the API gives them."""
        return self.ask("/flow_runs/filter", {"deployments": {"name": {"any_": [deployment]}}})

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


def _prefect(words: tuple[str, ...]) -> None:
    sys.argv = ["prefect", "--no-prompt", *words]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


@contextmanager
def served_as_documented(folder: Path, config: Path, database: Path) -> Iterator[Server]:
    """A server, all deployments for `config`, and a worker: set up and stopped as docs/operations.md says.

    What differs: the port and the folder of Prefect's files, whose database is a copy of an empty one, and a
    schedule is looked at every 2 seconds.
    """
    copy_database(database, folder / "prefect")
    page = Page.of("operations.md").section("A server, a worker, a schedule")
    port = str(free_port())
    pid_file = folder / "worker.pid"
    shell = Shell(
        PREFECT_HOME=str(folder / "prefect"),
        PREFECT_SERVER_API_PORT=port,
        PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS="2",
        PREFECT_WORKER_QUERY_SECONDS="2",
    )
    started = page.block_with("prefect server start").replaced(
        {
            "127.0.0.1:4200": f"127.0.0.1:{port}",
            "/srv/personsearch/nightly.yaml": str(config),
            # Job control, since a shell without it lets what it starts ignore Ctrl-C.
            "prefect worker start --pool personsearch": "set -m; prefect worker start --pool personsearch "
            f"> {folder / 'worker.log'} 2>&1 & echo $! > {pid_file}",
        }
    )
    stopped = page.block_with("prefect server stop").replaced(
        {
            'pkill -f "prefect worker start"': f"kill $(cat {pid_file})",
            'pgrep -f "prefect worker start"': f"2> /dev/null kill -0 $(cat {pid_file})",
        }
    )
    try:
        shell.run(started)
        yield Server(
            f"http://127.0.0.1:{port}/api",
            shell.environment
            | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PERSONSEARCH_CONFIG": str(config)},
        )
    finally:
        shell.run(stopped)


@contextmanager
def bare_server(folder: Path, database: Path | None = None) -> Iterator[Server]:
    """A server without deployments and workers, in a process of its own; `database` is copied, if given."""
    if database is not None:
        copy_database(database, folder / "prefect")
    port = str(free_port())
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Members that wait for their turn are not late; on SQLite, marking them locks the workers out.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "DO_NOT_TRACK": "1",
    }
    words = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    with (folder / "server.log").open("wb") as log:
        running = subprocess.Popen(words, env=environment, cwd=PROJECT, stdout=log, stderr=subprocess.STDOUT)
    server = Server(url, environment)
    try:
        wait_until(server.answers, 120)
        yield server
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)


def wait_until(condition: Callable[[], object], seconds: float, *, every: float = 0.5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds:.0f} s"
        time.sleep(every)


@contextmanager
def workers(
    server: Server, pool: str, folder: Path, count: int, environment: Mapping[str, str] = NO_VALUES
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Workers of a process pool: each runs one flow at a time, and is a machine of its own.

    What they have in common with each other is the server, and the store that the runs name.
    """
    running = []
    try:
        for number in range(count):
            own = {"PERSONSEARCH_CACHE": str(folder / f"machine-{number}")}
            with (folder / f"{pool}-{number}.log").open("wb") as log:
                words = ("worker", "start", "--pool", pool, "--limit", "1", "--name", f"{pool}-{number}")
                running.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "prefect", *words],
                        env=server.environment | dict(environment) | own,
                        cwd=PROJECT,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )
        yield running
    finally:
        for worker in running:
            worker.send_signal(signal.SIGINT)
        for worker in running:
            worker.wait(60)


def built_by(folder: Path) -> Counter[str]:
    """How often each artifact was built, by the logs of the machines of `workers` in a folder."""
    return Counter(
        f"{log.parent.name}/{log.stem}"
        for log in folder.glob("machine-*/**/.logs/*/*.log")
        for line in log.read_text().splitlines()
        if " building it here" in line
    )
