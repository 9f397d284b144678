"""The cells of a study's tables: which artifact has the metric, and its value."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_catalog.suggestions import did_you_mean
from flows.config.models import Config
from flows.config.sections import EvaluationSection, ViewRef
from flows.errors import ConfigError
from flows.stages import evaluation, speed
from flows.stages.base import feature_names, test_names
from flows.studies.loading import Loader
from flows.studies.members import Cell, Study, StudyTable, cells_of
from flows.studies.models import Column, Unit
from flows.studies.reading import place
from flows.studies.walks import MemberOutcome
from personsearch_core.evaluation.settings import Setting, listed_protocol, settings_of
from storage.store import Artifact, Store

_OF_TESTS = ("detections", "gallery", "evaluation")
"""Kinds of stages that a member has one of for each test dataset."""

SECONDS = "seconds"
"""A metric of every stage: how long it took."""

FACTORS: dict[Unit, float] = {"percent": 100.0}
"""What turns a metric into a unit's values, where that is not 1."""


@dataclass(frozen=True)
class MetricSource:
    """Where a column's metric is in a member: the stage, and the setting of an evaluation."""

    stage: str
    setting: str | None = None


@dataclass(frozen=True)
class CellValue:
    """A cell as it stands: values in the column's unit, one per distinct artifact; why others are missing."""

    values: tuple[float, ...]
    artifacts: tuple[str, ...]
    """As kind/key."""
    published: float | None
    hole: str | None = None
    settings: tuple[Mapping[str, str], ...] = ()
    """Of the member of each value."""

    @property
    def value(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the sample (n - 1); None for fewer than two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class FilledRow:
    name: str
    title: str
    cells: Mapping[str, CellValue]
    ours: bool = False


@dataclass(frozen=True)
class FilledTable:
    """A table with its values, as far as there are any."""

    table: StudyTable
    rows: tuple[FilledRow, ...]

    @property
    def cells(self) -> list[CellValue]:
        return [cell for row in self.rows for cell in row.cells.values()]

    @property
    def artifacts(self) -> set[str]:
        """All that the values are from."""
        return {name for cell in self.cells for name in cell.artifacts}


def source_of(column: Column, config: Config, until: Sequence[str]) -> MetricSource:
    """The stage of a member, of those named `until`, that has a column's metric.

    Raises ConfigError when the member has none.
    """
    suffix, entry = "", None
    if column.stage in _OF_TESTS:
        suffix, entry = _tested(column, config)
    elif column.stage == "features" and config.reid is not None:
        suffix = _of_dataset(column.dataset, feature_names(config))
    stage = f"{column.stage}{suffix}"
    if stage not in until:
        raise ConfigError(f"it has no stage {stage}; it has {', '.join(until)}")
    if entry is None or column.stage != "evaluation" or not _asks_for_setting(column):
        return MetricSource(stage)
    settings = settings_of(entry)
    found = next((setting for setting in settings if _is_asked_for(setting, column)), None)
    if found is None:
        names = "; ".join(setting.name for setting in settings)
        raise ConfigError(f"its evaluation has no setting like this column's; it has {names}")
    return MetricSource(stage, found.name)


def _tested(column: Column, config: Config) -> tuple[str, EvaluationSection]:
    """A column's test, and what tells its stages from those of others.

    Raises ConfigError if there is none.
    """
    tests = {of.test.dataset: (name, of) for name, of in test_names(config).items()}
    if not tests:
        raise ConfigError("its config evaluates nothing")
    wanted = column.test or next(iter(tests))
    if wanted not in tests:
        raise ConfigError(f"it is not tested on {wanted!r} but on {', '.join(tests)}")
    return tests[wanted]


def _of_dataset(wanted: str | None, names: Mapping[str, ViewRef]) -> str:
    """What tells a dataset's features stage from the others. Raises ConfigError if there is none."""
    by_dataset = {view.dataset: name for name, view in names.items()}
    wanted = wanted or next(iter(by_dataset))
    if wanted not in by_dataset:
        raise ConfigError(f"its re-ID is not trained on {wanted!r} but on {', '.join(by_dataset)}")
    return by_dataset[wanted]


def _asks_for_setting(column: Column) -> bool:
    return column.gallery is not None or column.boxes_per_image is not None or column.ground_truth_boxes


def _is_asked_for(setting: Setting, column: Column) -> bool:
    gallery = column.gallery is None or (
        setting.full_gallery
        if column.gallery == "full"
        else setting.protocol == listed_protocol(column.gallery)
    )
    return (
        gallery
        and setting.boxes_per_image == column.boxes_per_image
        and setting.ground_truth_boxes == column.ground_truth_boxes
        and setting.per_image_top_k is None
        and setting.rescore is None
    )


def _check_metric(metric: str, source: MetricSource, column: Column, config: Config) -> None:
    """Raise ConfigError for a metric that the stage will not have, where that is known before it is built."""
    if column.stage == "evaluation":
        of_setting = source.setting is not None
        _, entry = _tested(column, config)
        known = evaluation.metric_names(entry, of_setting=of_setting, untrained=config.gallery.untrained)
    elif column.stage == "speed" and config.speed is not None:
        known = speed.metric_names(config.speed)
    else:
        return
    if metric not in (*known, SECONDS):
        at = f"its setting {source.setting!r}" if source.setting is not None else f"its {column.stage}"
        raise ConfigError(_without(metric, at, [*known, SECONDS]))


def _without(metric: str, at: str, known: Iterable[str]) -> str:
    return f"{at} has no metric {metric!r}{did_you_mean(metric, known)}; it has {', '.join(known)}"


def check_cells(study: Study, loader: Loader) -> None:
    """Raise ConfigError, with its line, for a column that a member cannot have a value of."""
    for table, column, cell in cells_of(study.tables):
        for name in cell.members:
            if name not in study.members:
                continue
            loaded = loader.load(study.members[name])
            try:
                wanted, stages = table.columns[column], [stage.name for stage in loaded.stages]
                source = source_of(wanted, loaded.config, stages)
                _check_metric(cell.metric, source, wanted, loaded.config)
            except ConfigError as error:
                at = place(study.path, f"tables.{table.name}.columns.{column}")
                raise ConfigError(f"{at}: column {column!r} of member {name!r}: {error}") from error


@dataclass
class Filling:
    """Reads cells from the artifacts that members have; what was read is remembered."""

    study: Study
    loader: Loader
    _metrics: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def tables(self, outcomes: Iterable[MemberOutcome]) -> list[FilledTable]:
        """All tables as they stand; cells of members that have failed or are on their way are holes."""
        by_name = {outcome.member.name: outcome for outcome in outcomes}
        return [self._filled(table, by_name) for table in self.study.tables]

    def _filled(self, table: StudyTable, by_name: Mapping[str, MemberOutcome]) -> FilledTable:
        rows = [
            FilledRow(
                row.name,
                row.title,
                {name: self._value(cell, table.columns[name], by_name) for name, cell in row.cells.items()},
                row.ours,
            )
            for row in table.rows
        ]
        if table.is_ranked:
            first = next(iter(table.columns))
            rows.sort(key=lambda row: _rank(row.cells[first].value), reverse=True)
        return FilledTable(table, tuple(rows))

    def _value(self, cell: Cell, column: Column, by_name: Mapping[str, MemberOutcome]) -> CellValue:
        found: dict[str, float] = {}
        settings: dict[str, Mapping[str, str]] = {}
        holes = []
        for name in cell.members:
            outcome = by_name.get(name)
            if outcome is None:
                holes.append(f"{name}: left out")
                continue
            value = self._of_member(cell, column, outcome)
            if isinstance(value, str):
                holes.append(f"{name}: {value}")
            else:
                found[value[0]] = value[1]
                settings[value[0]] = outcome.member.settings
        hole = "; ".join(holes) or None
        return CellValue(tuple(found.values()), tuple(found), cell.published, hole, tuple(settings.values()))

    def _of_member(self, cell: Cell, column: Column, outcome: MemberOutcome) -> tuple[str, float] | str:
        """The artifact's name and the value, or why there is none."""
        loaded = self.loader.load(outcome.member)
        try:
            source = source_of(column, loaded.config, [stage.name for stage in loaded.stages])
        except ConfigError as error:  # members of a sweep may differ in what they are tested on
            return str(error)
        artifact = outcome.artifacts.get(source.stage)
        if artifact is None:
            return str(outcome.failure or f"{source.stage} is not built yet")
        metrics = self._metrics_of(artifact, source.setting, loaded.store)
        value = metrics.get(cell.metric)
        if not isinstance(value, int | float):
            return _without(cell.metric, artifact.kind, metrics)
        return artifact.name, FACTORS.get(column.unit, 1.0) * value

    def _metrics_of(self, artifact: Artifact, setting: str | None, store: Store) -> Mapping[str, Any]:
        """Metrics of an artifact, or of one setting of an evaluation, and `seconds`."""
        known = f"{artifact.key} {setting}"
        if known not in self._metrics:
            found: Mapping[str, Any] = artifact.manifest.metrics
            if setting is not None:
                path = store.here(artifact).path / evaluation.METRICS
                records = json.loads(path.read_bytes())["settings"]
                found = next(record for record in records if record["name"] == setting)
            self._metrics[known] = {**found, SECONDS: artifact.manifest.seconds}
        return self._metrics[known]


def _rank(value: float | None) -> float:
    return -math.inf if value is None else value
