"""The history of a training as plots, one for each kind of quantity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.report.content import Figure
from flows.report.plots import Series, history_plot

HISTORY = "history.parquet"

_PANELS: tuple[tuple[str, str, Callable[[str], bool], bool], ...] = (
    ("Loss", "", lambda name: name in ("loss", "classification", "regression"), False),
    (
        "Loss by part",
        "By objective, or by training set.",
        lambda name: name.startswith("loss/"),
        False,
    ),
    (
        "Validation",
        "Measured every few epochs on what training does not see.",
        lambda name: name.startswith("validation/"),
        False,
    ),
    (
        "Distances in a batch",
        "Mean over pairs of the same person and of different people: the gap between them is what is learnt.",
        lambda name: name.endswith("_distance"),
        False,
    ),
    (
        "Active triplets",
        "The share of triplets that still give a gradient.",
        lambda name: "active" in name,
        False,
    ),
    ("Norms", "Of the gradient and of embeddings.", lambda name: name.endswith("_norm"), True),
    ("Learning rate", "", lambda name: name in ("rate", "lr"), False),
)
"""Title, caption, which columns of the history belong to it, whether values span magnitudes."""


def training_figures(artifact: Path) -> list[Figure]:
    """Plots of a training artifact's history; what the history does not have is left out."""
    history = pq.read_table(artifact / HISTORY)
    boundaries = _phase_starts(history)
    figures = []
    for title, caption, belongs, log_y in _PANELS:
        names = [name for name in history.column_names if name != "step" and belongs(name)]
        series = [line for name in names if len((line := _series(history, name))[1])]
        if series:
            figures.append(Figure(title, history_plot(series, boundaries, log_y=log_y), caption))
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
