"""A study on a Prefect work pool: each member is a flow run, which any worker of the pool may take.

Workers share the store, and nothing else. A key that several members need is built by one of them while the
others wait: by the store's lock in a shared folder, by its lease on object storage.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config.request import RunRequest
from flows.errors import ConfigError, Failure
from flows.run.console import told
from flows.run.prefect_api import configured_url, require_answer
from flows.run.prefect_defaults import be_quiet, fewer_collections
from flows.studies.loading import Loaded, Loader
from flows.studies.members import Member
from flows.studies.record import StudyRecord
from flows.studies.schedule import Change, MemberWalk, StudyOutcome, ignore_change
from storage.digests import digest_json

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

log = logging.getLogger(__name__)

DEPLOYMENT = "member"
POLL_SECONDS = 2.0
_WORKERS_SECONDS = 30.0
"""How often the workers of runs that go on are asked for; a worker's last beat may be 90 s old."""
_PAGE = 100
_STOPPED = Failure("interrupted", "the study was stopped")
_WORKER = "prefect.worker.name"


def run_on_pool(
    members: Sequence[Member],
    loader: Loader,
    recorded_as: Path,
    pool: str,
    *,
    on_change: Callable[[Change], None] = ignore_change,
) -> StudyOutcome:
    """Run every member that is not built yet as a flow run on a work pool, and return how each ended.

    recorded_as, on_change
        see `run_members`; a stage is told of when the first run that needs it has ended.

    A flow run of an earlier call that goes on is taken over. A failed, cancelled or killed run fails its
    member alone. KeyboardInterrupt cancels the runs that this call has submitted.
    Raises ConfigError, before anything is submitted, for a config that is wrong, without a server, and
    without the pool; ConnectionError when the server does not answer.
    """
    walks = [MemberWalk(member, loader) for member in members]
    requests = {member.name: _request(member, loader.load(member)) for member in members}
    records = {str(walk.store): StudyRecord(recorded_as, walk.store) for walk in walks}
    progress = _Progress(walks, records, on_change)
    stopped = False
    with ExitStack() as hearts, _work_pool(pool) as runs:
        try:
            for record in records.values():
                hearts.enter_context(record.heartbeat())
            progress.advance(walks)
            waiting = list(_in_turn(progress.missing(walks)))
            runs.submit({walk.member.name: requests[walk.member.name] for walk in waiting})
            by_name = {walk.member.name: walk for walk in waiting}
            for name, failure in runs.ended():
                progress.end(by_name[name], failure)
        except KeyboardInterrupt:
            stopped = True
            runs.cancel()
        finally:
            for walk in walks:
                progress.leave(walk)
            for at, record in records.items():
                record.end((w.member.name, w.failure) for w in walks if str(w.store) == at and w.failure)
    return StudyOutcome([walk.outcome for walk in walks], dict(progress.made), stopped)


def _request(member: Member, loaded: Loaded) -> RunRequest:
    """What a worker is asked for. A member promotes no tag and notifies no one: its study tells."""
    if member.until == "speed":
        raise ConfigError(f"member {member.name!r} measures the speed of a machine: run it without --on")
    config = loaded.config
    said = {"promote": config.promote, "run.notify": config.run.notify}
    silent = [f"{name}=null" for name, value in said.items() if value is not None]
    return RunRequest(
        config=member.config.resolve(),
        overrides=(*member.overrides, *silent),
        store=config.store,
        until=member.until,
    )


@dataclass
class _Progress:
    """What the store has of the members, and what came in this call."""

    walks: Sequence[MemberWalk]
    records: Mapping[str, StudyRecord]
    on_change: Callable[[Change], None]
    made: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _known: set[str] = field(default_factory=set)

    def advance(self, walks: Sequence[MemberWalk]) -> None:
        """Pass what is there before anything is submitted."""
        for walk in walks:
            walk.advance({}, self.records[str(walk.store)])
            self._known |= {f"{made.kind}/{made.key}" for made in walk.artifacts.values()}

    def missing(self, walks: Sequence[MemberWalk]) -> list[MemberWalk]:
        return [walk for walk in walks if walk.failure is None and not walk.is_whole]

    def end(self, walk: MemberWalk, failure: Failure | None) -> None:
        """Take what the ended run of a member has left in the store, and tell of what is new."""
        planned = walk.advance({}, self.records[str(walk.store)])
        for stage, made in walk.artifacts.items():
            name = f"{made.kind}/{made.key}"
            if name not in self._known:
                self._known.add(name)
                self.made[made.kind] += 1
                self._tell(walk, stage, None)
        if planned is not None:
            gone = Failure("broke", "its run has ended, and the store does not have it")
            walk.failure = failure or gone.of(planned.stage.name)
            self._tell(walk, planned.stage.name, walk.failure)

    def leave(self, walk: MemberWalk) -> None:
        """A member that still needs a stage was stopped before it."""
        planned = walk.advance({}, self.records[str(walk.store)])
        if planned is not None:
            walk.failure = _STOPPED.of(planned.stage.name)

    def _tell(self, walk: MemberWalk, stage: str, failure: Failure | None) -> None:
        outcomes = [each.outcome for each in self.walks]
        self.on_change(Change(stage, walk.member.name, True, failure, lambda: outcomes))


def _in_turn(walks: Sequence[MemberWalk]) -> Iterator[MemberWalk]:
    """Members that need different artifacts next, in turn: those of one kind would wait for each other."""
    groups: dict[str, list[MemberWalk]] = defaultdict(list)
    for walk in walks:
        groups[str(walk.next_key)].append(walk)
    return (walk for walk in chain.from_iterable(zip_longest(*groups.values())) if walk is not None)


@contextmanager
def _work_pool(pool: str) -> Iterator[_Runs]:
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
            yield _Runs(client, pool, _deployment(pool))
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

    return RunnerDeployment.from_flow(
        person_search,
        f"{DEPLOYMENT}-{pool}",
        description="Members of studies and sweeps (`--on`).",
        work_pool_name=pool,
        job_variables={"env": dict(QUIET)},
        entrypoint_type=EntrypointType.MODULE_PATH,
    ).apply()


@dataclass
class _Runs:
    """The flow runs that this call waits for, by member."""

    client: SyncPrefectClient
    pool: str
    deployment: UUID
    _waiting: dict[UUID, str] = field(default_factory=dict)
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
            self._waiting[found] = name
        if self._waiting:
            told.info(
                "submitted to the work pool %s: %d of %d members; the others are there already",
                self.pool,
                len(self._mine),
                len(self._waiting),
            )

    def ended(self) -> Iterator[tuple[str, Failure | None]]:
        """(member, why it failed or None) of each run, as they end."""
        while self._waiting:
            for run in self._states(list(self._waiting)):
                if run.state is not None and run.state.is_final():
                    yield self._waiting.pop(run.id), _failure(run)
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
