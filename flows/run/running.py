"""A run of a config as one call: what the command line, the demo and sweeps share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from flows.config.models import Config
from flows.config.request import RunRequest
from flows.console import busy, told
from flows.errors import Failure
from flows.plan.states import Planned, require_space, require_synchronised_norms
from flows.run.nights import conclude
from flows.run.notices import announced
from flows.run.planning import Outcome, artifacts_of, check_datasets, outcome_of, plan_stages
from flows.run.prefect_api import api, start_ahead
from flows.run.records import RunRecord
from flows.run.stopping import stoppable
from flows.run.template import require_forks
from flows.run.walk import Walk, kept, new_record, tell_pinned
from storage.store import Store


def run_config(request: RunRequest) -> Outcome:
    """Execute a config's plan; if there is nothing to do, neither start an API nor load Prefect."""
    started = time.monotonic()
    with announced(request):
        with busy(f"reading {request.config.name} and its store"):
            config, store, plan = plan_stages(request)
        require_synchronised_norms(config, plan)
        require_space(plan, store)
        is_cached = all(planned.state == "cached" for planned in plan)
        if is_cached:
            with busy("checking the datasets"):
                check_datasets(config, plan, store, decode=True)
            for planned in plan:
                tell_pinned(planned)
    if is_cached:
        return _all_cached(request, config, plan, store, started)
    require_forks()
    # Prefect takes longer to load, and a fresh API to start, than many a stage takes.
    ahead = start_ahead()
    record = new_record(request)
    to_build = sum(planned.state != "cached" for planned in plan)
    told.info("%s: %s of %s stages to build, store %s", request.config.name, to_build, len(plan), store)
    with (
        kept(record),
        stoppable(lambda: _saved(record, plan, store)),
        announced(request, record),
        ExitStack() as stack,
    ):
        with busy("starting Prefect beside the first stage"):
            walk = Walk.of(request, record, store)
            stack.enter_context(walk.head_start())
            prefect_api = stack.enter_context(api(ahead))
            from flows.pipeline import run_recorded
        state = run_recorded(walk, prefect_api)
        if not state.is_completed():
            record.failure = record.failure or Failure("broke", state.message or "the flow failed")
    outcome = _with_report(outcome_of(record.stages, store, started), store)
    outcome.failure, outcome.promotion = record.failure, record.promotion
    return outcome


def _all_cached(
    request: RunRequest, config: Config, plan: Sequence[Planned], store: Store, started: float
) -> Outcome:
    """The outcome where nothing is to be built; a model that was not promoted before may be now."""
    outcome = outcome_of([planned.as_record() for planned in plan], store, started)
    if config.promote is not None:
        record = new_record(request)
        record.stages = outcome.stages
        with kept(record), announced(request, record):
            conclude(config, artifacts_of(plan), store, record)
        outcome.promotion = record.promotion
    return _with_report(outcome, store)


def _saved(record: RunRecord, plan: Sequence[Planned], store: Store) -> str:
    """What the stages that were stopped have kept, each after a semicolon."""
    stages = {planned.stage.name: planned.stage for planned in plan}
    said = ""
    for running in record.stages:
        if running["state"] == "running":
            stage, key, point = stages[running["stage"]], running["key"], None
            if stage.resume_point is not None and key is not None:
                point = stage.resume_point(store.place.work_path_of(stage.kind, key))
            said += f"; {stage.name} {'has no checkpoint yet' if point is None else f'is saved at {point}'}"
    return said


def _with_report(outcome: Outcome, store: Store) -> Outcome:
    """The outcome of a run, whose report must be on this machine so that it can be opened."""
    for stage in outcome.stages:
        if outcome.report is not None and stage["stage"].partition(":")[0] == "report":
            store.local_path("report", stage["key"])
    return outcome
