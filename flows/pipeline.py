"""The Prefect flow that executes a plan: one task per stage.

Prefect observes, the manifest decides: whether a stage runs is asked of the store, so tasks cache nothing.
Tasks take and return references (kind, key), never data.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.tasks import Task

from flows.config.request import RunRequest
from flows.console import told
from flows.errors import RETRY_DELAYS, Failure, failure_of
from flows.plan.states import Planned
from flows.run.embedded_api import Api
from flows.run.nights import conclude
from flows.run.notices import announced
from flows.run.observing import progress_of, show_run
from flows.run.prefect_api import api
from flows.run.records import RunRecord, where_time_went
from flows.run.walk import Walk, kept, new_record
from flows.tracking.protocol import Status
from flows.tracking.running import Trackers

log = logging.getLogger(__name__)


@flow(name="person-search", flow_run_name="{request.config.stem}")
def person_search(request: RunRequest) -> State[Any]:
    """Build, stage by stage, what the config asks for and the store does not have yet."""
    try:
        with announced(request):
            record = new_record(request)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        return Failed(message=str(failure))
    with kept(record), announced(request, record), api() as prefect_api:
        prefect_api.watch_over(UUID(flow_run.id))
        return _guarded(record, lambda: Walk.of(request, record))


def run_recorded(walk: Walk, api: Api) -> State[Any]:
    """The same flow, run in this process for a caller that keeps the record, even if it cannot be written."""

    @flow(name="person-search", flow_run_name=Path(walk.record.config).stem)
    def recorded() -> State[Any]:
        api.watch_over(UUID(flow_run.id))
        return _guarded(walk.record, lambda: walk)

    return recorded(return_state=True)


def _guarded(record: RunRecord, begin: Callable[[], Walk]) -> State[Any]:
    """Execute; bad input ends the run with one line, without a traceback."""
    try:
        return execute(begin())
    except Exception as error:
        record.failure = failure_of(error)
        if record.failure is None:
            raise
        return Failed(message=str(record.failure))


def execute(walk: Walk) -> State[Any]:
    """Go through the stages in order; what is made and what fails is in the record."""
    trackers = Trackers(walk.config, walk.record)
    status: Status = "stopped"
    try:
        state = _make_all(walk, trackers)
        status = "finished" if state.is_completed() else _status(walk.record.failure)
        return state
    except Exception as error:
        status = _status(failure_of(error))
        raise
    finally:
        log.info(where_time_went(walk.record.stages, time.monotonic() - walk.started))
        trackers.end(walk.artifacts, status)
        show_run(walk.record, walk.artifacts)


def _status(failure: Failure | None) -> Status:
    return "stopped" if failure is not None and failure.kind == "interrupted" else "failed"


def _make_all(walk: Walk, trackers: Trackers) -> State[Any]:
    record = walk.record
    while (planned := walk.next()) is not None:
        trackers.update(walk.artifacts)
        if (refusal := walk.refusal(planned)) is not None:
            return _fail(record, planned, Failure("refused", refusal))
        identity = planned.known
        state = _task(planned, walk)(identity.kind, identity.key, return_state=True)
        found = walk.store.find(identity.kind, identity.key) if state.is_completed() else None
        if found is None:
            unknown = Failure("broke", state.message or f"it was built but is gone from {walk.store}")
            return _fail(record, planned, record.failure or unknown)
        walk.made(planned, found)
    conclude(walk.config, walk.artifacts, walk.store, record)
    made = sum(stage["state"] == "made" for stage in record.stages)
    promotion = f"; {record.promotion['text']}" if record.promotion else ""
    return Completed(message=f"{made} stages built, {len(record.stages) - made} cached{promotion}")


def _fail(record: RunRecord, planned: Planned, failure: Failure) -> State[Any]:
    told = failure.of(planned.stage.name)
    record.failed(told)
    return Failed(message=str(told))


def _task(planned: Planned, walk: Walk) -> Task[[str, str], Any]:
    record, limit = walk.record, walk.config.run.stage_timeout_seconds

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
        log.info("building %s (%s/%s): %s", planned.stage.name, kind, key, planned.reason)
        if planned.state == "resumes":
            told.info("%s %s", planned.stage.name, planned.reason)
        record.failure = None
        with progress_of(planned.stage.name) as line:
            try:
                built = walk.begin(planned).artifact(on_progress=line.update, timeout_seconds=limit)
            except Exception as error:
                record.failure = failure = failure_of(error)
                # Bad input stays bad: no retry, and no traceback if the message says it all.
                if failure is None or failure.is_worth_retrying:
                    if failure is not None:
                        told.warning("%s", failure.of(planned.stage.name))
                    raise
                return Failed(message=str(failure))
        line.built(built)
        if line.rates:
            record.stages[-1]["rates"] = line.rates
        return {"kind": kind, "key": key}

    return make_stage


def _is_worth_retrying(task: Task[Any, Any], run: Any, state: State[Any]) -> bool:
    failure = failure_of(state.data) if isinstance(state.data, BaseException) else None
    return failure is not None and failure.is_worth_retrying
