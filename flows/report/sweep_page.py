"""The report of a sweep: tables, parallel coordinates of all members, and mAP over each setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes

from flows.report.plots import INK, SERIES, draw_svg

_FOLDER = Path(__file__).with_name("template")


def render_sweep(title: str, members: pd.DataFrame, groups: pd.DataFrame, settings: Sequence[str]) -> str:
    """One self-contained HTML file; takes the tables of `flows.studies.table`."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    finished = members[members["mAP"].notna()]
    plots = []
    if len(finished):
        plots.append(("All members", parallel_coordinates(finished, settings)))
        plots += [(f"mAP over {name}", scatter(finished, name)) for name in settings]
    return environment.get_template("sweep.html.j2").render(
        title=title,
        style=Markup((_FOLDER / "style.css").read_text()),
        plots=plots,
        tables=[("Means over seeds", _cells(groups)), ("Members", _cells(members))],
    )


def parallel_coordinates(members: pd.DataFrame, settings: Sequence[str]) -> Markup:
    """One line per member through its settings to its mAP; the better half is highlighted."""

    def draw(axes: Axes) -> None:
        columns = [_positions(members[name]) for name in settings]
        scores = members["mAP"].to_numpy()
        heights = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-12)
        lines = np.column_stack([*(places for places, _ in columns), heights])
        for line, score in zip(lines, scores, strict=True):
            better = score >= np.median(scores)
            axes.plot(line, color=SERIES[0] if better else INK, alpha=0.8 if better else 0.3, linewidth=1.2)
        for place, (_, labels) in enumerate(columns):
            for height, label in labels.items():
                axes.annotate(
                    str(label), (place, height), xytext=(4, 3), textcoords="offset points", fontsize=7
                )
        for height, score in ((0.0, scores.min()), (1.0, scores.max())):
            axes.annotate(
                f"{100 * score:.1f}", (len(columns), height), xytext=(4, 3), textcoords="offset points"
            )
        axes.set_xticks(range(len(columns) + 1), [*settings, "mAP, %"])
        axes.set_yticks([])

    return draw_svg(draw)


def scatter(members: pd.DataFrame, setting: str) -> Markup:
    """mAP of each member over one setting, with the mean per value."""

    def draw(axes: Axes) -> None:
        values = list(dict.fromkeys(sorted(members[setting], key=_sort_key)))
        place = members[setting].map(values.index)
        axes.scatter(place, 100 * members["mAP"], color=SERIES[0], s=16, alpha=0.7)
        means = [100 * members.loc[members[setting] == value, "mAP"].mean() for value in values]
        axes.plot(range(len(values)), means, color=INK, linestyle=":", marker="_")
        axes.set_xticks(range(len(values)), [str(value) for value in values])
        axes.tick_params(axis="x", rotation=30 if max(len(str(value)) for value in values) > 8 else 0)
        axes.set_xlabel(setting)
        axes.set_ylabel("mAP, %")

    return draw_svg(draw)


def _positions(column: pd.Series) -> tuple[np.ndarray, dict[float, str]]:
    """Heights from 0 to 1 of a setting's values in order, and the label at each height."""
    values = list(dict.fromkeys(sorted(column, key=_sort_key)))
    step = 1 / max(1, len(values) - 1)
    heights = {value: step * index for index, value in enumerate(values)}
    return column.map(heights).to_numpy(), {height: value for value, height in heights.items()}


def _sort_key(value: str) -> tuple[int, float, str]:
    """Sorts numbers by value, before words."""
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)


def _cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    return list(table.columns), [[_text(value) for value in row] for row in table.itertuples(index=False)]


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
