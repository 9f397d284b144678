"""Flow runs on a Prefect work pool, any of whose workers may take them: submit, wait, cancel."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from flows.config.request import RunRequest
from flows.errors import ConfigError, Failure
from flows.run.console import told
from flows.run.prefect_api import configured_url, require_answer
from flows.run.prefect_defaults import be_quiet, fewer_collections
from storage.digests import digest_json

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

DEPLOYMENT = "member"
POLL_SECONDS = 2.0
_WORKERS_SECONDS = 30.0
"""How often the workers of runs that go on are asked for; a worker's last beat may be 90 s old."""
_PAGE = 100
_WORKER = "prefect.worker.name"


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
            f"the Prefect API at {url} does not answer any more ({error or type(error).__name__}); the "
            "members go on: run the same command again to wait for them"
        ) from error


def _require_pool(client: SyncPrefectClient, pool: str) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_work_pool(pool)
    except ObjectNotFound as error:
        raise ConfigError(
            f"--on {pool}: the server has no such work pool; to create it: prefect work-pool create {pool} "
            "--type process"
        ) from error


def _deployment(pool: str) -> UUID:
    """The deployment of members on this pool: the pipeline, as it is installed where a worker runs."""
    from prefect.deployments.runner import EntrypointType, RunnerDeployment

    from flows.pipeline import person_search
    from flows.run.prefect_defaults import QUIET

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
    _looked: float = 0.0
    _is_idle: bool = False

    def submit(self, requests: Mapping[str, RunRequest]) -> None:
        """Submit a flow run for each member, or take over an earlier one that goes on."""
        going_on = self._going_on()
        for name, request in requests.items():
            body = request.model_dump(mode="json")
            tag = f"personsearch-{digest_json(body)[:16]}"
            found = going_on.get(tag)
            if found is None:
                run = self.client.create_flow_run_from_deployment(
                    self.deployment, parameters={"request": body}, name=name, tags=[tag, name]
                )
                found = run.id
                self._mine.add(found)
                going_on[tag] = found
            self._waiting[found].append(name)
        if self._waiting:
            told.info(
                "submitted to the work pool %s: %d runs; %d go on already",
                self.pool,
                len(self._mine),
                len(self._waiting) - len(self._mine),
            )

    def ended(self) -> Iterator[tuple[str, Failure | None]]:
        """(member, why it failed or None) of each run, as they end."""
        while self._waiting:
            for run in self._states(list(self._waiting)):
                if run.state is not None and run.state.is_final():
                    for name in self._waiting.pop(run.id):
                        yield name, _failure(run)
            self._look_after_workers()
            if self._waiting:
                time.sleep(POLL_SECONDS)

    def cancel(self) -> None:
        """Cancel the runs that this call has submitted; one that goes on stops at a checkpoint."""
        from prefect.states import Cancelled, Cancelling, State

        for run in self._states([each for each in self._waiting if each in self._mine]):
            is_scheduled = run.state is None or run.state.is_scheduled()
            state: State[Any] = Cancelled() if is_scheduled else Cancelling()
            self.client.set_flow_run_state(run.id, state, force=True)

    def _going_on(self) -> dict[str, UUID]:
        """Unfinished runs of this deployment, by their tags."""
        from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter

        mine = DeploymentFilter.model_validate({"id": {"any_": [self.deployment]}})
        states = FlowRunFilter.model_validate(
            {"state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING"]}}}
        )
        found: dict[str, UUID] = {}
        offset = 0
        while page := self.client.read_flow_runs(
            deployment_filter=mine, flow_run_filter=states, limit=_PAGE, offset=offset
        ):
            found |= {tag: run.id for run in page for tag in run.tags}
            offset += len(page)
        return found

    def _states(self, runs: Sequence[UUID]) -> Iterator[FlowRun]:
        from prefect.client.schemas.filters import FlowRunFilter

        for start in range(0, len(runs), _PAGE):
            these = FlowRunFilter.model_validate({"id": {"any_": runs[start : start + _PAGE]}})
            yield from self.client.read_flow_runs(flow_run_filter=these, limit=_PAGE)

    def _look_after_workers(self) -> None:
        """Mark runs as crashed whose worker is gone: with its machine, no one else would."""
        if time.monotonic() - self._looked < _WORKERS_SECONDS:
            return
        self._looked = time.monotonic()
        workers = self.client.read_workers_for_work_pool(self.pool)
        online = {worker.name for worker in workers if worker.status == "ONLINE"}
        if not online and not self._is_idle:
            told.warning(
                "no worker of the work pool %s is online; to start one: prefect worker start --pool %s",
                self.pool,
                self.pool,
            )
        self._is_idle = not online
        for run in self._states(list(self._waiting)):
            worker = run.labels.get(_WORKER)
            if run.state is not None and run.state.is_running() and worker and worker not in online:
                self._mark_as_lost(run, str(worker))

    def _mark_as_lost(self, run: FlowRun, worker: str) -> None:
        from prefect.states import Crashed, State

        crashed: State[Any] = Crashed(message=f"its worker {worker} is gone")
        self.client.set_flow_run_state(run.id, crashed, force=True)


def _failure(run: FlowRun) -> Failure | None:
    """How a flow run that has ended failed; None if it did not."""
    state = run.state
    if state is None or state.is_completed():
        return None
    message = state.message or f"its run {run.id} ended as {state.name}"
    if state.is_crashed():
        return Failure("died", f"its process was killed: {message}")
    if state.is_cancelled():
        return Failure("interrupted", f"its run was cancelled: {message}")
    return Failure("refused", message)
