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
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

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


def be_quiet() -> None:
    """Set Prefect's defaults for unattended, offline use, where the user has not chosen otherwise.

    To be called before Prefect is imported.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def api() -> Iterator[str]:
    """The URL of the API for this run: as PREFECT_API_URL or the profile says, else one that is started here.

    Raises TimeoutError when the embedded API does not come up.
    """
    be_quiet()
    configured = _configured_url()
    if configured:
        yield configured
        return
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    # One at a time: a fresh database is migrated by the first API that finds it.
    with exclusive(PREFECT_HOME.value() / "personsearch-api.lock", what="the embedded Prefect API"):
        server, url = _start()
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            try:
                yield url
            finally:
                _deliver_logs()
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if server.stdin is not None:
            server.stdin.close()


def _start() -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    server = subprocess.Popen(
        [sys.executable, "-m", "flows.prefect_api", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_healthy(url, server)
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


def _deliver_logs() -> None:
    """Wait a moment for Prefect's own threads to deliver logs and events before their API goes."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=5)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the embedded Prefect API ended at its start with status {server.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise TimeoutError(f"the embedded Prefect API did not come up within {_START_SECONDS:.0f} s")


def _serve(port: int) -> None:
    die_with_parent(0)
    be_quiet()
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(create_app(ephemeral=True), host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
