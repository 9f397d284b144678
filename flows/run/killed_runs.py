"""Flow runs whose process was killed: Prefect would show them as running forever."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from flows.run.embedded_api import Api, Place
from storage.digests import digest_json

log = logging.getLogger(__name__)


@contextmanager
def server_in_use(url: str, home: Path) -> Iterator[Api]:
    """The API of a server that the user runs, for one run.

    Unlike an embedded API, a server does not see whether a run's process lives. So each run marks the killed
    ones of this host and home folder before it begins.
    """
    place = Place.of(home, f"server-{digest_json(url)[:12]}")
    place.folder.mkdir(parents=True, exist_ok=True)
    for killed in place.killed_runs():
        mark_as_crashed(killed, url)
    with place.lease() as lease:
        yield Api(url, lease)


def mark_as_crashed(flow_run: UUID, url: str) -> None:
    """Set the state of a killed flow run and its unfinished tasks; a run that has ended keeps its state."""
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
