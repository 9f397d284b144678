"""Training history as plots, one per kind of quantity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.report.content import Figure
from flows.report.plots import Series, history_plot
from flows.stages.detector import HISTORY


@dataclass(frozen=True)
class _Panel:
    """One plot: which columns of the history it shows, and how."""

    title: str
    belongs: Callable[[str], bool]
    caption: str = ""
    noisy: bool = True
    log_y: bool = False


_PANELS = (
    _Panel("Loss", lambda name: name in ("loss", "classification", "regression")),
    _Panel("Loss by part", lambda name: name.startswith("loss/"), "By objective or training set."),
    _Panel(
        "Validation",
        lambda name: name.startswith("validation/"),
        "Measured every few epochs on held-out data.",
        noisy=False,
    ),
    _Panel(
        "Distances within a batch",
        lambda name: name.endswith("_distance"),
        "Mean distance of pairs of the same person and of different people; training widens the gap.",
    ),
    _Panel(
        "Active triplets",
        lambda name: name.startswith("active_"),
        "Share of the triplets that still produce a gradient.",
    ),
    _Panel(
        "Norms",
        lambda name: name.endswith("_norm"),
        "Norms of the gradient and of the re-ID embeddings.",
        log_y=True,
    ),
    _Panel("Learning rate", lambda name: name == "rate", noisy=False),
)


def training_figures(artifact: Path) -> list[Figure]:
    """Plots of a training artifact's history; skips quantities that it does not contain.

    A model that was imported has no history.
    """
    if not (artifact / HISTORY).is_file():
        return []
    history = pq.read_table(artifact / HISTORY)
    boundaries = _phase_starts(history)
    figures = []
    for panel in _PANELS:
        names = [name for name in history.column_names if panel.belongs(name)]
        series = [line for name in names if len((line := _series(history, name))[1])]
        if series:
            plot = history_plot(series, boundaries, noisy=panel.noisy, log_y=panel.log_y)
            figures.append(Figure(panel.title, plot, panel.caption))
    return figures


def _series(history: pa.Table, name: str) -> Series:
    """The steps at which a metric was logged, counted from 1, and its values."""
    logged = pc.is_valid(history[name])
    steps = history["step"].filter(logged).to_numpy() + 1
    label = (name.partition("/")[2] or name).replace("_", " ").replace("/", " ")
    return label, steps, history[name].filter(logged).to_numpy()


def _phase_starts(history: pa.Table) -> list[float]:
    """Steps at which a new training phase begins."""
    if "phase" not in history.column_names:
        return []
    changes = np.flatnonzero(np.diff(history["phase"].to_numpy()))
    return [float(step) + 0.5 for step in history["step"].to_numpy()[changes] + 1]
