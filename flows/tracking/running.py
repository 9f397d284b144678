"""Telling trackers of a run. A tracker that fails or hangs costs a warning, never the run."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.config.models import Config
from flows.console import told
from flows.run.records import RunRecord
from flows.stages.detector import HISTORY
from flows.stages.report import PAGE
from flows.tracking.protocol import Curve, Status, TrackedRun, TrackedStage, Tracker, load_tracker
from storage.store import Artifact

LIMIT_SECONDS = 60.0
"""How long a tracker may take for one call."""
MOST_POINTS = 1_000
"""Of a curve; a longer one is thinned to points at equal distances, and its last."""
NOT_TOLD = frozenset({"run", "store", "root", "pin"})
"""Fields of a config that change no result, or repeat the manifest of a pinned model."""


class Trackers:
    """The trackers of a run that have not failed so far."""

    def __init__(self, config: Config, record: RunRecord) -> None:
        self.record = record
        self._open: list[tuple[str, Tracker]] = []
        self._told: set[str] = set()
        run = TrackedRun(record.name, Path(record.config).name, config.store, params_of(config))
        for section in config.run.trackers:
            tracker = self._call(section.name, partial(_started, section.name, section.options, run))
            if tracker is not None:
                self._open.append((section.name, tracker))

    def update(self, artifacts: Mapping[str, Artifact]) -> None:
        """Tell of the stages whose artifacts are new here."""
        if not self._open:
            return
        built = {each["stage"] for each in self.record.stages if each["state"] == "made"}
        for name, artifact in artifacts.items():
            if name not in self._told:
                self._told.add(name)
                stage = _stage(name, artifact, built=name in built)
                self._tell(lambda tracker, stage=stage: tracker.stage(stage))  # type: ignore[misc]

    def end(self, artifacts: Mapping[str, Artifact], status: Status) -> None:
        """Tell of what is left, and of the end."""
        self.update(artifacts)
        report = artifacts.get("report")
        page = None if report is None else report.path / PAGE
        self._tell(lambda tracker: tracker.end(status, page))

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        def heard(tracker: Tracker) -> bool:
            call(tracker)
            return True

        self._open = [each for each in self._open if self._call(each[0], partial(heard, each[1]))]

    def _call(self, name: str, call: Callable[[], Any]) -> Any:
        """What the call returns; None, with a warning, if it fails or takes too long."""
        future = Future[Any]()

        def work() -> None:
            try:
                future.set_result(call())
            except BaseException as error:  # third-party code may raise anything, SystemExit too
                future.set_exception(error)

        threading.Thread(target=work, daemon=True, name=f"tracker-{name}").start()
        if future not in wait([future], LIMIT_SECONDS).done:
            problem = f"it took longer than {LIMIT_SECONDS:g} s"
        elif (error := future.exception()) is None:
            return future.result()
        else:
            problem = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        said = f"run.trackers: {name}: {problem}; this run goes on without it"
        told.warning("%s", said)
        self.record.warnings.append(said)
        return None


def params_of(config: Config) -> dict[str, str]:
    """The fields of a config that may change results, by their paths."""
    return dict(_flat(config.model_dump(mode="json"), ""))


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name not in NOT_TOLD:
                yield from _flat(each, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for number, each in enumerate(value):
            yield from _flat(each, f"{path}.{number}")
    elif value is not None:
        yield path, str(value)


def _started(name: str, options: Mapping[str, Any], run: TrackedRun) -> Tracker:
    tracker = load_tracker(name)(**options)
    tracker.start(run)
    return tracker


def _stage(name: str, artifact: Artifact, *, built: bool) -> TrackedStage:
    metrics = {
        key: float(value)
        for key, value in artifact.manifest.metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    return TrackedStage(name, artifact.name, built, metrics, partial(_curves, artifact.path / HISTORY))


def _curves(history: Path) -> Iterator[Curve]:
    """The columns of a training's history; nothing for a stage without one."""
    if not history.is_file():
        return
    table = pq.read_table(history)
    for name in table.column_names:
        if name == "step":
            continue
        points = [
            (step, value)
            for step, value in zip(table["step"].to_pylist(), table[name].to_pylist(), strict=True)
            if value is not None and math.isfinite(value)
        ]
        stride = -(-len(points) // MOST_POINTS) or 1
        chosen = points[::stride]
        if points and chosen[-1] != points[-1]:
            chosen.append(points[-1])
        yield Curve(name, [step for step, _ in chosen], [value for _, value in chosen])
