"""A Prefect server and a worker for the tests, as docs/operations.md sets them up."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.end_to_end.commands import PROJECT

POOL = "personsearch"


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
    folder: Path

    def prefect(self, *words: str, **variables: str) -> str:
        """Run the `prefect` command line and return what it printed."""
        done = self.try_prefect(*words, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def try_prefect(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the `prefect` command line, which may fail."""
        return subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *words],
            env=self.environment | variables,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """The flow runs of a deployment, as the API gives them."""
        return self.ask("/flow_runs/filter", {"deployments": {"name": {"any_": [deployment]}}})

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    """A server with its database in `folder`; ends with the block."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # Otherwise a schedule is looked at once a minute only.
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    server = Server(url, environment, folder)
    with _process(server, "server", "start", "--port", str(port)):
        wait_until(lambda: _is_healthy(url), 120)
        yield server


@contextmanager
def working(server: Server) -> Iterator[None]:
    """A process worker on the pool, which is made."""
    server.prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
    with _process(server, "worker", "start", "--pool", POOL):
        yield


def wait_until(condition: Callable[[], object], seconds: float, *, every: float = 0.5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds:.0f} s"
        time.sleep(every)


@contextmanager
def _process(server: Server, *words: str) -> Iterator[None]:
    with (server.folder / f"{words[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *words],
            env=server.environment,
            cwd=PROJECT,
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except OSError:
        return False
