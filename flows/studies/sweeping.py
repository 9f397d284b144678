"""A sweep as a study: one grid of one config, and one table of its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.config.loading import load_config
from flows.config.models import Config
from flows.plan.changes import is_seed
from flows.stages.base import test_names
from flows.studies.grid import Axis, grid
from flows.studies.members import Cell, Member, Study, StudyTable, TableRow
from flows.studies.models import Column

TABLE = "sweep"


def sweep_study(
    path: Path, axes: Sequence[Axis], always: Sequence[str] = (), store: str | None = None
) -> Study:
    """Every combination of the axes' values as a member; rows are means over axes that are seeds."""
    points = grid(axes, always)
    members = {point.name: Member(point.name, path, point.overrides, point.settings) for point in points}
    columns = sweep_columns(load_config(path, points[0].overrides, store=store))
    rows: dict[str, list[str]] = {}
    for member in members.values():
        kept = [value for name, value in member.settings.items() if not is_seed(name)]
        rows.setdefault(", ".join(kept) or "all seeds", []).append(member.name)
    settings = ", ".join(axis.name for axis in axes if not is_seed(axis.name)) or "seeds"
    table = StudyTable(
        TABLE,
        f"{settings} of {path.name}",
        "",
        None,
        columns,
        tuple(
            TableRow(name, name, {key: Cell(tuple(of), column.metric) for key, column in columns.items()})
            for name, of in rows.items()
        ),
        is_ranked=True,
    )
    return Study(path, f"Sweep of {path.name}", members, (table,), store)


def sweep_columns(config: Config) -> Mapping[str, Column]:
    """The first test's figures, mAP and AP of every test where there are several, and seconds of training."""
    tests = [entry.test.dataset for entry in test_names(config).values()]
    first = f" on {tests[0]}" if len(tests) > 1 else ""
    columns = {
        "mAP": Column(title=f"mAP{first}", metric="mAP"),
        "rank1": Column(title=f"rank-1{first}", metric="rank1"),
        "detection_ap50": Column(title=f"detection AP50{first}", metric="detection_ap50"),
    }
    if config.gallery.untrained:
        columns["mAP_untrained"] = Column(title=f"mAP of the untrained branch{first}", metric="mAP_untrained")
    for test in tests[1:]:
        columns[f"mAP on {test}"] = Column(title=f"mAP on {test}", metric="mAP", test=test)
        columns[f"detection_ap50 on {test}"] = Column(
            title=f"detection AP50 on {test}", metric="detection_ap50", test=test
        )
    for name, metric in _validation(config).items():
        columns[name] = Column(title=name, stage="detector", metric=metric)
    columns["reid_seconds"] = Column(title="re-ID training", stage="reid", metric="seconds", unit="s")
    if config.foreign is not None:  # without a detector there are no detections to measure
        return {name: column for name, column in columns.items() if column.metric != "detection_ap50"}
    return columns


def _validation(config: Config) -> Mapping[str, str]:
    """Titles and metrics of the AP that detector training measures."""
    held_out = config.detector.train if config.detector.training.held_out else ()
    sources = sorted({view.dataset for view in (*config.detector.validation, *held_out)})
    if len(sources) < 2:
        return {"validation AP50": "validation/coco_ap50"} if sources else {}
    return {f"validation AP50 on {name}": f"validation/{name}/coco_ap50" for name in sources}
