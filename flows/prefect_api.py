"""The Prefect API that a run talks to: a configured server, or one of its own that ends with the process.

Prefect's own ephemeral API is started detached, and a kill -9 of the flow orphans it. Ours is a child that
watches a pipe from its parent, as stages are.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from flows.child import die_with_parent
from storage.locks import exclusive

log = logging.getLogger(__name__)

_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,storage,data_catalog,personsearch_core",
}
_START_SECONDS = 180.0
_LOOPBACK = "127.0.0.1"
_LAST_LINES = 3


def be_quiet() -> None:
    """Set Prefect's defaults for unattended, offline use, where the user has not chosen otherwise.

    To be called before Prefect is imported.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def api() -> Iterator[str]:
    """The URL of the API for this run: as PREFECT_API_URL or the profile says, else one that is started here.

    Raises ConnectionError when a configured API does not answer, or when one's own ends at its start, and
    TimeoutError when that does not come up.
    """
    be_quiet()
    configured = _configured_url()
    if configured:
        _require_answer(configured)
        yield configured
        return
    with _loopback_without_proxy(), _own_api() as url:
        yield url


@contextmanager
def _own_api() -> Iterator[str]:
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    # One at a time: a fresh database is migrated by the first API that finds it.
    with exclusive(PREFECT_HOME.value() / "personsearch-api.lock", what="the embedded Prefect API"):
        server, url = _start()
    runs = logging.getLogger("prefect.flow_runs")
    runs.addFilter(_is_no_link)
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            try:
                yield url
            finally:
                _deliver_logs()
    finally:
        runs.removeFilter(_is_no_link)
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if server.stdin is not None:
            server.stdin.close()


def _is_no_link(record: logging.LogRecord) -> bool:
    """The run's page goes with its API, before anybody can follow a link to it."""
    return not record.getMessage().startswith("View at ")


def _start() -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    url = f"http://{_LOOPBACK}:{port}/api"
    with tempfile.TemporaryFile() as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.prefect_api", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
        try:
            _wait_until_healthy(url, server, said)
        except BaseException:
            server.kill()
            server.wait()
            raise
    return server, url


def _configured_url() -> str | None:
    if "PREFECT_API_URL" in os.environ:
        return os.environ["PREFECT_API_URL"]
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value()


def _require_answer(url: str) -> None:
    """Ask a configured API for a sign of life, through Prefect's own client: its proxy, its certificates."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    settings = {PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    # Any status is an answer.
    if error is not None and not isinstance(error, httpx.HTTPStatusError):
        raise ConnectionError(
            f"the Prefect API at {url} does not answer ({error or type(error).__name__}): start it, or unset "
            "PREFECT_API_URL (also in the profile) for one that lasts as long as the run"
        ) from error


@contextmanager
def _loopback_without_proxy() -> Iterator[None]:
    """For every HTTP client of this process: what listens on this machine is no matter for a proxy."""
    before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    spared = next(filter(None, before.values()), None)
    os.environ.update(dict.fromkeys(before, _LOOPBACK if spared is None else f"{spared},{_LOOPBACK}"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _deliver_logs() -> None:
    """Wait a moment for Prefect's own threads to deliver logs and events before their API goes."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=5)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ConnectionError(
                f"the embedded Prefect API ended at its start with status {server.returncode}, and said: "
                f"{_last_words(said)} (its database is in $PREFECT_HOME, by default ~/.prefect)"
            )
        try:
            with direct.open(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise TimeoutError(
        f"the embedded Prefect API did not come up within {_START_SECONDS:.0f} s, and said: "
        f"{_last_words(said)}"
    )


def _last_words(said: IO[bytes]) -> str:
    said.seek(0)
    # Without the marks by which a traceback points into its lines.
    lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip(" ^~")]
    return " | ".join(lines[-_LAST_LINES:]) or "nothing"


def _serve(port: int) -> None:
    die_with_parent(0)
    be_quiet()
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(create_app(ephemeral=True), host=_LOOPBACK, port=port, log_level="error")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
