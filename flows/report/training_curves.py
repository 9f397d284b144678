"""The history of a training as plots, one for each kind of quantity."""

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

HISTORY = "history.parquet"


@dataclass(frozen=True)
class _Panel:
    """One plot: the columns of the history that belong on it, and how they are drawn."""

    title: str
    belongs: Callable[[str], bool]
    caption: str = ""
    noisy: bool = True
    log_y: bool = False


_PANELS = (
    _Panel("Loss", lambda name: name in ("loss", "classification", "regression")),
    _Panel("Loss by part", lambda name: name.startswith("loss/"), "By objective, or by training set."),
    _Panel(
        "Validation",
        lambda name: name.startswith("validation/"),
        "Measured every few epochs on what training does not see.",
        noisy=False,
    ),
    _Panel(
        "Distances in a batch",
        lambda name: name.endswith("_distance"),
        "Means over pairs of one person and of two: the gap between them is what is learnt.",
    ),
    _Panel(
        "Active triplets",
        lambda name: name.startswith("active_"),
        "The part of the triplets that still gives a gradient.",
    ),
    _Panel(
        "Norms",
        lambda name: name.endswith("_norm"),
        "Of the gradient, and of re-ID's embeddings.",
        log_y=True,
    ),
    _Panel("Learning rate", lambda name: name == "rate", noisy=False),
)


def training_figures(artifact: Path) -> list[Figure]:
    """Plots of a training artifact's history; what the history does not have is left out."""
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
    """The steps at which the metric was logged, counted from 1, and its values."""
    logged = pc.is_valid(history[name])
    steps = history["step"].filter(logged).to_numpy() + 1
    label = name.rpartition("/")[2].replace("_", " ")
    return label, steps, history[name].filter(logged).to_numpy()


def _phase_starts(history: pa.Table) -> list[float]:
    """Steps at which another phase of the training begins."""
    if "phase" not in history.column_names:
        return []
    changes = np.flatnonzero(np.diff(history["phase"].to_numpy()))
    return [float(step) + 0.5 for step in history["step"].to_numpy()[changes] + 1]
