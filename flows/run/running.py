"""A run or a plan of a config as one call: what the command line, the demo and sweeps share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from data_catalog.errors import CatalogError
from flows.config.loading import load_config
from flows.config.models import Config
from flows.config.request import RunRequest
from flows.errors import Failure, StageError, StageFailed, failure_or_bug
from flows.plan.readiness import check_ready
from flows.plan.states import Planned, make_plan, require_space, select
from flows.run.console import busy, told
from flows.run.nights import conclude
from flows.run.notices import announced
from flows.run.prefect_api import api, start_ahead
from flows.run.records import RunRecord
from flows.run.stopping import stoppable
from flows.run.template import require_forks
from flows.run.walk import Walk, kept, new_record, tell_pinned
from flows.stages import ingest
from flows.stages.building import build_stages
from storage.errors import StorageError
from storage.opening import open_store
from storage.store import Artifact, Store

RESULTS = ("detection_ap50", "mAP", "rank1", "rank5", "rank10", "mAP_untrained")


@dataclass
class Outcome:
    """The state of every stage, and the results so far."""

    stages: list[dict[str, Any]]
    wall_seconds: float
    results: dict[str, float | None] = field(default_factory=dict)
    report: str | None = None
    failure: Failure | None = None
    promotion: dict[str, Any] | None = None
    """Whether a tag was moved to the run's model, and why."""

    def as_data(self) -> dict[str, Any]:
        """For other programs."""
        shown = ("stage", "state", "reason", "key", "path", "seconds", "bytes_needed")
        body: dict[str, Any] = {
            "stages": [
                {name: stage.get(name) for name in shown}
                | ({"pinned": stage["pinned"]} if "pinned" in stage else {})
                for stage in self.stages
            ],
            "wall_seconds": self.wall_seconds,
            "results": self.results,
            "report": self.report,
        }
        if self.promotion is not None:
            body["promotion"] = self.promotion
        if self.failure is not None:
            body |= {"error": self.failure.message, "failure": asdict(self.failure)}
        return body

    def raise_error(self) -> None:
        """Raise StageFailed if there is a failure."""
        if self.failure is not None:
            raise StageFailed(self.failure)


def plan_config(request: RunRequest) -> Outcome:
    """The plan of a config as it stands; builds nothing. What a run would refuse now is its failure."""
    started = time.monotonic()
    config, store, plan = _planned(request)
    outcome = _outcome([planned.as_record() for planned in plan], store, started)
    try:
        require_space(plan, store)
        _check_ready(config, plan, store, decode=False)
    except (StorageError, StageError, CatalogError) as error:
        outcome.failure = failure_or_bug(error)
    return outcome


def run_config(request: RunRequest) -> Outcome:
    """Execute a config's plan; if there is nothing to do, neither start an API nor load Prefect."""
    started = time.monotonic()
    with announced(request):
        with busy(f"reading {request.config.name} and its store"):
            config, store, plan = _planned(request)
        require_space(plan, store)
        is_cached = all(planned.state == "cached" for planned in plan)
        if is_cached:
            with busy("checking the datasets"):
                _check_ready(config, plan, store, decode=True)
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
    outcome = _with_report(_outcome(record.stages, store, started), store)
    outcome.failure, outcome.promotion = record.failure, record.promotion
    return outcome


def _all_cached(
    request: RunRequest, config: Config, plan: Sequence[Planned], store: Store, started: float
) -> Outcome:
    """The outcome where nothing is to be built; a model that was not promoted before may be now."""
    outcome = _outcome([planned.as_record() for planned in plan], store, started)
    if config.promote is not None:
        record = new_record(request)
        record.stages = outcome.stages
        with kept(record), announced(request, record):
            conclude(config, _artifacts(plan), store, record)
        outcome.promotion = record.promotion
    return _with_report(outcome, store)


def _saved(record: RunRecord, plan: Sequence[Planned], store: Store) -> str:
    """What the stages that were stopped have kept, each after a semicolon."""
    running = [stage for stage in record.stages if stage["state"] == "running"]
    return "".join(f"; {_saved_stage(stage, plan, store)}" for stage in running)


def _saved_stage(running: Mapping[str, Any], plan: Sequence[Planned], store: Store) -> str:
    """What a stage that was stopped has kept in its work area."""
    name, key = running["stage"], running["key"]
    stage = next(planned.stage for planned in plan if planned.stage.name == name)
    point = None
    if stage.resume_point is not None and key is not None:
        point = stage.resume_point(store.work_path_of(stage.kind, key))
    return f"{name} has no checkpoint yet" if point is None else f"{name} is saved at {point}"


def _planned(request: RunRequest) -> tuple[Config, Store, list[Planned]]:
    config = load_config(request.config, request.overrides, store=request.store)
    unused = config.datasets.keys() - config.used_datasets()
    for name in sorted(unused):
        told.warning("datasets.%s: no stage uses this dataset", name)
    store = open_store(config.store, verify_first=request.verify)
    stages, again = select(
        build_stages(config, partial(ingest.stage, rehash=request.verify)), request.selection
    )
    try:
        return config, store, make_plan(stages, store, again)
    except CatalogError:  # a split or a protocol that is not there: all that is missing is said, by its files
        datasets = make_plan([stage for stage in stages if stage.kind == "ingest"], store, again)
        check_ready(config, stages, _artifacts(datasets), store, decode=False)
        raise


def _artifacts(plan: Iterable[Planned]) -> dict[str, Artifact]:
    return {planned.stage.name: planned.artifact for planned in plan if planned.artifact is not None}


def _check_ready(config: Config, plan: list[Planned], store: Store, *, decode: bool) -> None:
    """Check the datasets that are there, as a run does before the first stage that uses one."""
    if any(planned.stage.kind != "ingest" for planned in plan):
        check_ready(config, [planned.stage for planned in plan], _artifacts(plan), store, decode=decode)


def _with_report(outcome: Outcome, store: Store) -> Outcome:
    """The outcome of a run, whose report must be on this machine so that it can be opened."""
    for stage in outcome.stages:
        if outcome.report is not None and stage["stage"].partition(":")[0] == "report":
            store.local_path("report", stage["key"])
    return outcome


def _outcome(records: list[dict[str, Any]], store: Store, started: float) -> Outcome:
    results: dict[str, float | None] = dict.fromkeys(RESULTS)
    report = None
    for record in records:
        if record["path"] is None:
            continue
        kind = record["stage"].partition(":")[0]
        if kind == "evaluation" and results["mAP"] is None:
            made = store.peek(kind, record["key"])
            metrics = made.manifest.metrics if made is not None else {}
            results.update({name: metrics.get(name) for name in RESULTS})
        if kind == "report":
            report = str(Path(record["path"]) / "report.html")
    return Outcome(records, round(time.monotonic() - started, 3), results, report)
