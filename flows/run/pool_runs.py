"""Flow runs on a Prefect work pool, any of whose workers may take them: submit, wait, cancel."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from flows.config.request import RunRequest
from flows.console import told
from flows.errors import ConfigError, Failure
from flows.run.prefect_api import configured_url, require_answer
from flows.run.prefect_defaults import QUIET, be_quiet, fewer_collections
from storage.digests import digest_json

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

DEPLOYMENT = "member"
_POLL_SECONDS = 2.0
_LOOK_SECONDS = 30.0
"""How often workers are asked for; the last beat of one that is online may be 90 s old."""
_PAGE = 100
_WORKER = "prefect.worker.name"
_WAITING = ("SCHEDULED", "PENDING", "RUNNING")
_ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_ALL: Mapping[str, Any] = {}


@contextmanager
def work_pool(pool: str) -> Iterator[PoolRuns]:
    """The flow runs of one call on a pool, whose deployment is registered or brought up to date."""
    be_quiet()
    with fewer_collections():
        url = configured_url()
    if not url:
        raise ConfigError(
            f"--on {pool} needs a Prefect server: start one, and set PREFECT_API_URL (docs/operations.md)"
        )
    require_answer(url)
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            _require_pool(client, pool)
            yield PoolRuns(client, pool, _deployment(pool))
    except httpx.HTTPError as error:
        raise ConnectionError(
            f"the Prefect API at {url} failed ({error or type(error).__name__}); members that were submitted "
            "go on: run the same command again to wait for them"
        ) from error


def _require_pool(client: SyncPrefectClient, pool: str) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_work_pool(pool)
    except ObjectNotFound as error:
        raise ConfigError(
            f"--on {pool}: the server has no work pool of this name; to create it: "
            f"prefect work-pool create {pool} --type process"
        ) from error


def _deployment(pool: str) -> UUID:
    """The deployment of members on this pool: the pipeline, as it is installed where a worker runs."""
    from prefect.deployments.runner import EntrypointType, RunnerDeployment

    from flows.pipeline import person_search

    deployment = RunnerDeployment.from_flow(
        person_search,
        f"{DEPLOYMENT}-{pool}",
        description="Members of studies and sweeps (`--on`).",
        work_pool_name=pool,
        job_variables={"env": dict(QUIET)},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast("UUID", deployment.apply())


@dataclass
class PoolRuns:
    """The flow runs that this call waits for, with the members that each stands for."""

    client: SyncPrefectClient
    pool: str
    deployment: UUID
    _waiting: dict[UUID, list[str]] = field(default_factory=lambda: defaultdict(list))
    _mine: set[UUID] = field(default_factory=set)
    _is_idle: bool = False

    def submit(self, requests: Mapping[str, RunRequest]) -> None:
        """Submit a flow run for each member, or take over an earlier one that goes on."""
        mine = {"id": {"any_": [self.deployment]}}
        going_on = {tag: run.id for run in self._read(_WAITING, deployments=mine) for tag in run.tags}
        for name, request in requests.items():
            # Another call of the same study has another record.
            tag = f"personsearch-{digest_json(request.model_dump(mode='json', exclude={'study'}))[:16]}"
            if tag not in going_on:
                run = self.client.create_flow_run_from_deployment(
                    self.deployment,
                    parameters={"request": request.model_dump(mode="json")},
                    name=name,
                    tags=[tag, name],
                )
                going_on[tag] = run.id
                self._mine.add(run.id)
            self._waiting[going_on[tag]].append(name)
        if self._waiting:
            others = len(self._waiting) - len(self._mine)
            told.info(
                "submitted to the work pool %s: %d runs; %d are running already",
                self.pool,
                len(self._mine),
                others,
            )

    def ended(self) -> Iterator[tuple[str, Failure | None]]:
        """(member, why it failed or None) of each run, as they end."""
        look = time.monotonic()
        while self._waiting:
            ended = {run.id: _failure(run) for run in self._of(self._waiting, _ENDED)}
            if time.monotonic() >= look:
                ended |= self._lost()
                look = time.monotonic() + _LOOK_SECONDS
            for number, failure in ended.items():
                for name in self._waiting.pop(number):
                    yield name, failure
            if self._waiting:
                time.sleep(_POLL_SECONDS)

    def cancel(self) -> None:
        """Cancel the runs that this call has submitted; one that goes on stops at a checkpoint."""
        from prefect.states import Cancelled, Cancelling, State

        for run in self._of([each for each in self._waiting if each in self._mine], _WAITING):
            is_scheduled = run.state is None or run.state.is_scheduled()
            state: State[Any] = Cancelled() if is_scheduled else Cancelling()
            self.client.set_flow_run_state(run.id, state, force=True)

    def _lost(self) -> dict[UUID, Failure | None]:
        """Runs that do not end by themselves: of a worker that is gone with its machine, and deleted ones."""
        workers = self.client.read_workers_for_work_pool(self.pool)
        online = {worker.name for worker in workers if worker.status == "ONLINE"}
        if not online and not self._is_idle:
            start = f"prefect worker start --pool {self.pool}"
            told.warning("no worker of the work pool %s is online; to start one: %s", self.pool, start)
        self._is_idle = not online
        runs = {run.id: run for run in self._of(self._waiting, (*_WAITING, *_ENDED, "PAUSED", "CANCELLING"))}
        lost: dict[UUID, Failure | None] = {
            number: Failure("interrupted", f"its flow run {number} was deleted")
            for number in self._waiting
            if number not in runs
        }
        for run in runs.values():
            worker = run.labels.get(_WORKER)
            is_taken = run.state is not None and (run.state.is_running() or run.state.is_pending())
            if is_taken and worker and worker not in online:
                lost[run.id] = self._mark_as_lost(run.id, str(worker))
        return lost

    def _mark_as_lost(self, run: UUID, worker: str) -> Failure:
        from prefect.states import Crashed, State

        message = f"its worker {worker} is gone"
        crashed: State[Any] = Crashed(message=message)
        self.client.set_flow_run_state(run, crashed, force=True)
        return Failure("died", message)

    def _of(self, runs: Iterable[UUID], states: Sequence[str]) -> Iterator[FlowRun]:
        """Those of the runs that are in one of the states."""
        numbers = list(runs)
        for start in range(0, len(numbers), _PAGE):
            yield from self._read(states, runs={"id": {"any_": numbers[start : start + _PAGE]}})

    def _read(
        self, states: Sequence[str], *, runs: Mapping[str, Any] = _ALL, deployments: Mapping[str, Any] = _ALL
    ) -> Iterator[FlowRun]:
        """The flow runs in one of the states that pass the API's filters."""
        from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter

        of_runs = FlowRunFilter.model_validate({**runs, "state": {"type": {"any_": list(states)}}})
        of_deployments = DeploymentFilter.model_validate(deployments)
        for offset in itertools.count(step=_PAGE):
            page = self.client.read_flow_runs(
                flow_run_filter=of_runs, deployment_filter=of_deployments, limit=_PAGE, offset=offset
            )
            yield from page
            if len(page) < _PAGE:
                return


def _failure(run: FlowRun) -> Failure | None:
    """How a flow run that has ended failed; None if it did not."""
    state = run.state
    if state is None or state.is_completed():
        return None
    message = state.message or f"flow run {run.id} ended as {state.name}"
    if state.is_crashed():
        return Failure("died", f"its process was killed: {message}")
    if state.is_cancelled():
        return Failure("interrupted", f"its run was cancelled: {message}")
    return Failure("refused", message)
