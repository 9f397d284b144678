"""Members on a Dask cluster: each is one task, which any worker may take. No Prefect."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distributed import Client, Event, Future, KilledWorker, as_completed, get_client

from flows.config.request import RunRequest
from flows.console import told
from flows.errors import Failure
from flows.plan.states import Planned
from flows.run.walk import Walk, kept, new_record
from flows.stages.dask_clients import dask_client
from flows.studies.schedule import ignore_progress, make_with_retries
from flows.studies.walks import logged
from storage.store import Artifact

_LOOK_SECONDS = 2.0
"""How often a worker asks whether the study is stopped."""


@contextmanager
def dask_runs(address: str) -> Iterator[DaskRuns]:
    """The members of one call on the cluster of a scheduler.

    Raises StageError when none answers there.
    """
    with dask_client(address, None, named="--on") as client:
        yield DaskRuns(client, address)


@dataclass
class DaskRuns:
    """The tasks that this call waits for, with the member of each."""

    client: Client
    address: str
    _stopping: str = field(default_factory=lambda: f"personsearch-{secrets.token_hex(8)}")
    _members: dict[Future[Failure | None], str] = field(default_factory=dict)

    def submit(self, requests: Mapping[str, RunRequest]) -> None:
        """Submit a task for each member."""
        for name, request in requests.items():
            body = request.model_dump(mode="json")
            self._members[self.client.submit(_run, body, self._stopping, pure=False)] = name
        if requests:
            workers = len(self.client.scheduler_info(n_workers=-1)["workers"])
            told.info("submitted to %s: %d members; workers: %d", self.address, len(requests), workers)

    def ended(self) -> Iterator[tuple[str, Failure | None]]:
        """(member, why it failed or None) of each task, as they end."""
        for future in as_completed(self._members, loop=self.client.loop):
            yield self._members[future], _how(future)
            future.release()

    def cancel(self) -> None:
        """Cancel all members; a stage that goes on stops at a checkpoint."""
        Event(self._stopping, client=self.client).set()
        self.client.cancel([*self._members])


def _how(future: Future[Failure | None]) -> Failure | None:
    """How a task's member failed, also if its workers died or the scheduler did; None if it did not."""
    if future.status == "cancelled":
        return Failure("interrupted", "its task was cancelled, or the scheduler is gone")
    try:
        return future.result()
    except KilledWorker as error:
        return Failure("died", f"its workers were lost: {error}")
    except Exception as error:
        return logged(error)


def _run(body: dict[str, Any], stopping: str) -> Failure | None:
    """A worker's side: build every stage of a member; how it failed, or None."""
    try:
        request = RunRequest.model_validate(body)
        record = new_record(request)
        with kept(record), _asked_to_stop(stopping) as stop:
            _build_all(Walk.of(request, record), stop)
    except Exception as error:
        return logged(error)
    return record.failure


def _build_all(walk: Walk, stop: threading.Event) -> None:
    while (planned := walk.next()) is not None:
        name = planned.stage.name
        try:
            walk.made(planned, make_with_retries(partial(_build, walk, planned, stop), stop, name))
        except Exception as error:
            walk.record.failed(logged(error).of(name))
            return


def _build(walk: Walk, planned: Planned, stop: threading.Event) -> Artifact:
    limit = walk.config.run.stage_timeout_seconds
    return walk.begin(planned).artifact(on_progress=ignore_progress, timeout_seconds=limit, stop=stop)


@contextmanager
def _asked_to_stop(name: str) -> Iterator[threading.Event]:
    """An event that is set when the study is stopped."""
    told_to, stop, ended = Event(name, client=get_client()), threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_SECONDS):
            if told_to.is_set():
                stop.set()
                return

    threading.Thread(target=watch, daemon=True, name="stopping").start()
    try:
        yield stop
    finally:
        ended.set()
