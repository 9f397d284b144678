"""The Prefect API that a run talks to: a configured server, or the embedded one of the home folder."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from flows.run import embedded_api
from flows.run.embedded_api import Api, ApiFiles
from flows.run.prefect_defaults import be_quiet, fewer_collections
from storage.digests import digest_json

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


def start_ahead() -> subprocess.Popen[bytes] | None:
    """Start an embedded API, if one will be needed, before Prefect is loaded; for `api`."""
    be_quiet()
    return None if "PREFECT_API_URL" in os.environ else embedded_api.start_ahead()


@contextmanager
def api(ahead: subprocess.Popen[bytes] | None = None) -> Iterator[Api]:
    """The API for this run: as PREFECT_API_URL or the profile says, else the embedded one of PREFECT_HOME.

    `ahead` is of `start_ahead`.
    Raises ConnectionError when a configured API does not answer, or when the embedded one fails to start, and
    TimeoutError when that does not come up.
    """
    be_quiet()
    with fewer_collections():
        configured = configured_url()
    if configured:
        require_answer(configured)
        from prefect.settings import get_current_settings

        with _server_in_use(configured, get_current_settings().home) as found:
            yield found
        return
    with _loopback_without_proxy(), _embedded(ahead) as found:
        yield found


@contextmanager
def _server_in_use(url: str, home: Path) -> Iterator[Api]:
    """The API of a server that the user runs, for one run.

    Unlike an embedded API, a server does not see whether a run's process lives. So each run marks the killed
    ones of this host and home folder before it begins.
    """
    place = ApiFiles.of(home, f"server-{digest_json(url)[:12]}")
    place.folder.mkdir(parents=True, exist_ok=True)
    for killed in place.killed_runs():
        mark_as_crashed(killed, url)
    with place.lease() as note:
        yield Api(url, note)


def mark_as_crashed(flow_run: UUID, url: str) -> None:
    """Set the state of a killed flow run and its unfinished tasks: Prefect would show it as running forever.

    A run that has ended keeps its state.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Crashed, State

    crashed: State[Any] = Crashed(message="the process of the run was killed")
    of_run = FlowRunFilter.model_validate({"id": {"any_": [flow_run]}})
    try:
        with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
            run = client.read_flow_run(flow_run)
            if run.state is not None and run.state.is_final():
                return
            client.set_flow_run_state(flow_run, crashed, force=True)
            for task_run in client.read_task_runs(flow_run_filter=of_run):
                if task_run.state is None or not task_run.state.is_final():
                    client.set_task_run_state(task_run.id, crashed, force=True)
    except (ObjectNotFound, PrefectHTTPStatusError, httpx.HTTPError) as error:
        log.warning("flow run %s was killed and could not be marked as crashed: %s", flow_run, error)


@contextmanager
def _embedded(ahead: subprocess.Popen[bytes] | None) -> Iterator[Api]:
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    runs = logging.getLogger("prefect.flow_runs")
    runs.addFilter(_is_no_link)
    try:
        with embedded_api.embedded_api(own_place(), ahead) as embedded:
            # The API sees by its lease whether a run lives; ending a thread of heartbeats costs up to 1 s.
            mine = {PREFECT_API_URL: embedded.url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
            with temporary_settings(mine):
                try:
                    yield embedded
                finally:
                    _deliver_logs()
    finally:
        runs.removeFilter(_is_no_link)


def own_place() -> ApiFiles:
    """By Prefect's settings: runs share an API where those of the server, version and installation agree."""
    import prefect
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    server = settings.server.to_environment_variables(exclude_unset=True)
    meant = {"server": server, "prefect": prefect.__version__, "python": sys.executable}
    return ApiFiles.of(settings.home, digest_json(meant)[:12])


def _is_no_link(record: logging.LogRecord) -> bool:
    """An embedded API serves no pages, so a link would lead nowhere."""
    return not record.getMessage().startswith("View at ")


def configured_url() -> str | None:
    """The API that PREFECT_API_URL or Prefect's profile names; None for the embedded one."""
    if "PREFECT_API_URL" in os.environ:
        return os.environ["PREFECT_API_URL"]
    from prefect.settings import PREFECT_API_URL

    found: str | None = PREFECT_API_URL.value()
    return found


def require_answer(url: str) -> None:
    """Check that a configured API answers, with Prefect's own client, so with its proxy and certificates."""
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
            "PREFECT_API_URL (also in the profile) for the embedded one"
        ) from error


@contextmanager
def _loopback_without_proxy() -> Iterator[None]:
    """Let every HTTP client of this process reach this machine without a proxy."""
    before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    spared = next(filter(None, before.values()), None)
    os.environ.update(dict.fromkeys(before, LOOPBACK if spared is None else f"{spared},{LOOPBACK}"))
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
