"""The plan of a config as one call, and the outcome of a plan or a run. Loads nothing that builds a stage."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from data_catalog.errors import CatalogError
from flows.config.loading import load_config
from flows.config.models import Config
from flows.config.request import RunRequest
from flows.errors import ConfigError, Failure, StageError, StageFailed, failure_or_bug
from flows.plan.readiness import check_ready
from flows.plan.states import (
    Planned,
    make_plan,
    require_space,
    require_synchronised_norms,
    select,
)
from flows.run.console import told
from flows.stages import ingest
from flows.stages.building import build_stages
from flows.stages.report import PAGE
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
    config, store, plan = plan_stages(request)
    outcome = outcome_of([planned.as_record() for planned in plan], store, started)
    try:
        require_synchronised_norms(config, plan)
        require_space(plan, store)
        check_datasets(config, plan, store, decode=False)
    except (ConfigError, StorageError, StageError, CatalogError) as error:
        outcome.failure = failure_or_bug(error)
    return outcome


def plan_stages(request: RunRequest) -> tuple[Config, Store, list[Planned]]:
    """The config with its overrides, its store, and the state of every stage that is asked for.

    Raises what reading a config and its datasets' roots raises.
    """
    config = load_config(request.config, request.overrides, store=request.store)
    unused = config.datasets.keys() - config.used_datasets()
    for name in sorted(unused):
        told.warning("datasets.%s: no stage uses this dataset", name)
    store = open_store(config.store, verify_first=request.verify)
    stages, again = select(
        build_stages(config, partial(ingest.stage, rehash=request.verify)),
        force=request.force,
        start_from=request.start_from,
        until=request.until,
    )
    try:
        return config, store, make_plan(stages, store, again)
    except CatalogError:  # a split or a protocol that is not there: all that is missing is said, by its files
        datasets = make_plan([stage for stage in stages if stage.kind == "ingest"], store, again)
        check_ready(config, stages, artifacts_of(datasets), store, decode=False)
        raise


def artifacts_of(plan: Iterable[Planned]) -> dict[str, Artifact]:
    """The artifacts that are there, by their stages' names."""
    return {planned.stage.name: planned.artifact for planned in plan if planned.artifact is not None}


def check_datasets(config: Config, plan: list[Planned], store: Store, *, decode: bool) -> None:
    """Check the datasets that are there, as a run does before the first stage that uses one."""
    if any(planned.stage.kind != "ingest" for planned in plan):
        check_ready(config, [planned.stage for planned in plan], artifacts_of(plan), store, decode=decode)


def outcome_of(records: list[dict[str, Any]], store: Store, started: float) -> Outcome:
    """The outcome of stages as they stand, with the results of the first evaluation among them."""
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
            report = str(Path(record["path"]) / PAGE)
    return Outcome(records, round(time.monotonic() - started, 3), results, report)
