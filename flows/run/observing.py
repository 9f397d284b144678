"""What a person sees of a run in Prefect's UI: stages, results, curves, and the progress of a stage.

Showing is never worth a run: when the API does not take it, the log says so and the run goes on.
"""

from __future__ import annotations

import base64
import io
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectHTTPStatusError

from flows.config.pins import TRAINED
from flows.run.records import RunRecord
from flows.run.stage_line import StageLine, stage_line
from flows.stages.detector import HISTORY
from storage.space import in_units
from storage.store import Artifact

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0


def show_run(record: RunRecord, artifacts: Mapping[str, Artifact]) -> None:
    """Tables of the stages and of the results so far, and the curves of what this run has trained."""
    run = _slug(record.config.rpartition("/")[2].rpartition(".")[0])
    with _never_in_the_way():
        stages = _stage_rows(record)
        create_table_artifact(stages, key=f"{run}-stages", description=f"The stages of run {record.name}")
        if results := _result_rows(artifacts):
            create_table_artifact(results, key=f"{run}-results", description="Results of every test")
        for stage in record.stages:
            name = stage["stage"]
            is_trained = stage["state"] == "made" and name in TRAINED and "pinned" not in stage
            if is_trained and name in artifacts:
                curve = base64.b64encode(loss_curve(artifacts[name])).decode()
                markdown = f"![{name}: loss by step](data:image/png;base64,{curve})"
                create_markdown_artifact(markdown, key=f"{run}-{name}-curve", description=f"Loss of {name}")


@contextmanager
def progress_of(name: str) -> Iterator[StageLine]:
    """The line of a stage, whose progress is in the UI, too."""
    shown = _ShownProgress(name)
    with stage_line(name, also=shown.update) as line:
        yield line
    shown.finish()


class _ShownProgress:
    """A progress artifact, made when there is progress, and brought up to date every few seconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._artifact: UUID | None = None
        self._shown_at = time.monotonic()

    def update(self, done: int, total: int) -> None:
        now = time.monotonic()
        if total < 1 or now - self._shown_at < PROGRESS_SECONDS:
            return
        self._shown_at = now
        self._show(100.0 * done / total)

    def finish(self) -> None:
        if self._artifact is not None:
            self._show(100.0)

    def _show(self, percent: float) -> None:
        with _never_in_the_way():
            if self._artifact is None:
                made = create_progress_artifact(
                    percent, key=f"progress-{_slug(self.name)}", description=f"Progress of {self.name}"
                )
                assert isinstance(made, UUID), "outside an event loop the call is made at once"
                self._artifact = made
            else:
                update_progress_artifact(self._artifact, percent)


def loss_curve(artifact: Artifact) -> bytes:
    """The loss of a training artifact by step, as a small PNG."""
    from matplotlib.figure import Figure

    history = pq.read_table(artifact.path / HISTORY, columns=["step", "loss"])
    history = history.filter(pc.is_valid(history["loss"]))
    figure = Figure(figsize=(5, 2.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(history["step"].to_numpy(), history["loss"].to_numpy(), linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _stage_rows(record: RunRecord) -> list[dict[str, Any]]:
    return [
        {
            "stage": stage["stage"],
            "state": stage["state"],
            "why": stage["reason"],
            "seconds": stage["seconds"],
            "peak memory": None if (peak := stage.get("peak_memory_bytes")) is None else in_units(peak),
            "key": stage["key"],
        }
        for stage in record.stages
    ]


def _result_rows(artifacts: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    return [
        {"test": name, **artifact.manifest.metrics}
        for name, artifact in artifacts.items()
        if artifact.kind == "evaluation"
    ]


def _slug(name: str) -> str:
    """Prefect takes keys of small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"


@contextmanager
def _never_in_the_way() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, PrefectHTTPStatusError, OSError) as error:
        log.warning("Prefect's API rejected tables or progress of this run: %s", error)
