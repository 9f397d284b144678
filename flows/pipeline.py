"""The Prefect flow that executes a plan: one task a stage.

Prefect observes, the manifest decides: whether a stage runs is asked of the store, so tasks cache nothing.
Tasks take and return references (kind, key), never data.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.tasks import Task

from flows.config import Config, load_config, store_of
from flows.errors import Interrupted, StageBroke, StageDied, explain
from flows.making import make_in_process
from flows.observing import progress_of, show_run
from flows.plan import Planned, resolve, select
from flows.prefect_api import Api
from flows.reach import stays
from flows.readiness import check_ready
from flows.records import RunRecord, heartbeat, new_record_path, where_time_went
from flows.request import RunRequest
from flows.retries import RETRY_DELAYS, is_worth_retrying
from flows.stages.base import Stage
from flows.stages.building import build_stages
from storage.artifacts import Artifact, LocalStore
from storage.opening import open_store

log = logging.getLogger(__name__)


@flow(name="person-search", flow_run_name="{request.config.stem}")
def person_search(request: RunRequest) -> State[Any]:
    """Make what the config asks for and the store does not have yet, stage by stage."""
    try:
        record = new_record(request)
    except Exception as error:
        refusal = explain(error)
        if refusal is None:
            raise
        return Failed(message=refusal)
    return _guarded(request, record)


def run_recorded(request: RunRequest, record: RunRecord, api: Api) -> State[Any]:
    """The same flow, run here and now, for a caller that keeps the record, also when no disk takes it."""

    @flow(name="person-search", flow_run_name=request.config.stem)
    def recorded() -> State[Any]:
        api.watch_over(UUID(flow_run.id))
        return _guarded(request, record)

    return recorded(return_state=True)


def new_record(request: RunRequest) -> RunRecord:
    """An empty record of a run, with a free name in the config's store.

    The rest of the config may be wrong, which the record then says. Raises ConfigError where not even the
    store can be told.
    """
    store = open_store(store_of(request.config, request.overrides, store=request.store))
    return RunRecord(new_record_path(store.root), str(request.config))


def _guarded(request: RunRequest, record: RunRecord) -> State[Any]:
    """Execute; what is wrong with the input ends the run with one line, without a traceback."""
    with heartbeat(record):
        try:
            return execute(request, record)
        except Exception as error:
            record.error = explain(error)
            if record.error is None:
                raise
            return Failed(message=record.error)
        finally:
            record.end()


def execute(request: RunRequest, record: RunRecord) -> State[Any]:
    """Go through the stages in order; what is made and what fails is in the record."""
    config = load_config(request.config, request.overrides, store=request.store)
    store = open_store(config.store)
    stages, again = select(build_stages(config), request.selection)
    artifacts: dict[str, Artifact] = {}
    started = time.monotonic()
    try:
        return _make_all(stages, store, config, request, record, artifacts, again)
    finally:
        log.info(where_time_went(record.stages, time.monotonic() - started))
        show_run(record, artifacts)


def _make_all(
    stages: Sequence[Stage],
    store: LocalStore,
    config: Config,
    request: RunRequest,
    record: RunRecord,
    artifacts: dict[str, Artifact],
    again: frozenset[str],
) -> State[Any]:
    """Each stage in turn; `artifacts` is filled by the names of stages."""
    hours = config.run.stage_timeout_hours
    checked = False
    for stage in stages:
        if stage.kind != "ingest" and not checked:
            check_ready(config, stages, artifacts, store)
            checked = True
        planned = _resolve_and_record(stage, store, artifacts, again, record)
        if planned.artifact is not None:
            artifacts[stage.name] = planned.artifact
            continue
        identity = planned.identity
        record.begin(planned, None if identity is None else store.log_path_of(stage.kind, identity.key))
        if request.only and stage.kind not in request.only:
            return _fail(record, planned, f"{planned.reason}; this run makes only {', '.join(request.only)}")
        assert identity is not None
        make_stage = _task(planned, store, artifacts, record, again=stage.name in again, hours=hours)
        state = make_stage(stage.kind, identity.key, return_state=True)
        found = store.find(stage.kind, identity.key) if state.is_completed() else None
        if found is None:
            return _fail(record, planned, state.message)
        artifacts[stage.name] = found
        record.made(found)
    made = sum(stage["state"] == "made" for stage in record.stages)
    return Completed(message=f"{made} stages made, {len(record.stages) - made} cached")


def _resolve_and_record(
    stage: Stage,
    store: LocalStore,
    artifacts: Mapping[str, Artifact],
    again: frozenset[str],
    record: RunRecord,
) -> Planned:
    """As `resolve`; what is cached is in the record by then, and no collection can take it any more."""
    while (planned := resolve(stage, store, artifacts, again)).artifact is not None:
        record.cached(planned)
        if stays(planned.artifact, store):
            break
        record.stages.pop()
    return planned


def _fail(record: RunRecord, planned: Planned, why: str | None) -> State[Any]:
    message = f"{planned.stage.name}: {why}"
    record.failed(message)
    return Failed(message=message)


def _task(
    planned: Planned,
    store: LocalStore,
    artifacts: Mapping[str, Artifact],
    record: RunRecord,
    *,
    again: bool,
    hours: float | None,
) -> Task[[str, str], Any]:
    @task(
        name=planned.stage.name,
        task_run_name=planned.stage.name,
        cache_policy=NO_CACHE,
        retries=len(RETRY_DELAYS),
        retry_delay_seconds=RETRY_DELAYS,
        retry_condition_fn=_is_worth_retrying,
        persist_result=False,
    )
    def make_stage(kind: str, key: str) -> Any:
        log.info("making %s (%s/%s): %s", planned.stage.name, kind, key, planned.reason)
        record.failure = None
        with progress_of(planned.stage.name) as line:
            try:
                make_in_process(
                    planned,
                    store,
                    artifacts,
                    on_progress=line.update,
                    again=again,
                    timeout_seconds=None if hours is None else hours * 3600,
                    run=str(flow_run.id),
                )
            except StageDied as error:
                record.failure = type(error).__name__
                raise
            except (StageBroke, Interrupted, TimeoutError) as error:
                record.failure = type(error).__name__
                return Failed(message=str(error))
            except (ValueError, OSError) as error:
                # What is wrong stays wrong: no retry, and no traceback where the message says it all.
                refusal = explain(error)
                if refusal is None or isinstance(error, ConnectionError):
                    raise
                return Failed(message=refusal)
        return {"kind": kind, "key": key}

    return make_stage


def _is_worth_retrying(task: Task[Any, Any], run: Any, state: State[Any]) -> bool:
    return is_worth_retrying(state.data)
