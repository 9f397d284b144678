"""Plots as inline SVG that takes its colours from the page, so that it is readable on light and on dark.

matplotlib draws with stand-in colours; in its output they become the style sheet's variables.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

Series = tuple[str, np.ndarray, np.ndarray]
"""Label, x (n,), y (n,)."""

INK, GRID = "#010101", "#020202"
SERIES = tuple(f"#0a0a{number:02x}" for number in range(1, 9))
_VARIABLES = {INK: "var(--muted)", GRID: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)
}
_DASHES = ("-", "--", ":")
_SMOOTH_FROM = 60
"""Curves of so many points get a running mean over the noisy line."""
_MOST_POINTS = 300

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, and in the page's font
    "svg.hashsalt": "personsearch",  # the same plot gives the same ids
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.linewidth": 0.6,
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


def line_plot(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    percent: bool = False,
    markers: bool = False,
    log_x: bool = False,
    level: tuple[str, float] | None = None,
) -> Markup:
    """Lines on common axes; `level` is a labelled horizontal line, `percent` says that y are fractions."""

    def draw(axes: Axes) -> None:
        for number, (label, x, y) in enumerate(series):
            colour, dashes = _look(number)
            axes.plot(x, y, dashes, color=colour, label=label, marker="o" if markers else None, markersize=4)
        if level is not None:
            axes.axhline(level[1], color=INK, linestyle=":", linewidth=1, label=level[0])
        if log_x:
            places = sorted({float(x) for _, xs, _ in series for x in xs})
            axes.set_xscale("log")
            axes.set_xticks(places, [f"{place:g}" for place in places])
            axes.xaxis.set_minor_locator(NullLocator())
        if percent:
            _percent_axis(axes)
        _label(axes, x_label, y_label, legend=len(series) + (level is not None) > 1)

    return _draw(draw)


def history_plot(series: Sequence[Series], boundaries: Sequence[float], *, log_y: bool = False) -> Markup:
    """Curves over steps, noisy ones faint under their running mean; dotted lines at `boundaries`."""

    def draw(axes: Axes) -> None:
        for number, (label, x, y) in enumerate(series):
            colour, dashes = _look(number)
            if len(y) < _SMOOTH_FROM:
                axes.plot(x, y, dashes, color=colour, label=label, marker="o" if len(y) < 25 else None, ms=3)
                continue
            axes.plot(*_thinned(x, y), color=colour, alpha=0.3, linewidth=0.8)
            axes.plot(*_thinned(x, _running_mean(y)), dashes, color=colour, label=label)
        for boundary in boundaries:
            axes.axvline(boundary, color=INK, linestyle=":", linewidth=1)
        if log_y:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        _label(axes, "step", "", legend=True)

    return _draw(draw)


def histogram(values: np.ndarray, x_label: str, y_label: str, bins: int = 20) -> Markup:
    """How fractions (n,) are distributed over 0 to 1."""

    def draw(axes: Axes) -> None:
        counts, edges = np.histogram(values, bins=bins, range=(0, 1))
        axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.9, align="edge", color=SERIES[0])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="x", visible=False)
        _label(axes, x_label, y_label, legend=False)

    return _draw(draw)


def _draw(draw: Callable[[Axes], None]) -> Markup:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Markup(_for_page(buffer.getvalue()))


def _for_page(svg: str) -> str:
    """The <svg> element alone, without its fixed size and its ids of groups, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = svg.replace("<svg", '<svg class="plot" role="img"', 1)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return re.sub(r"\n\s*", "\n", svg)


def _look(number: int) -> tuple[str, str]:
    return SERIES[number % len(SERIES)], _DASHES[number // len(SERIES) % len(_DASHES)]


def _percent_axis(axes: Axes) -> None:
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))


def _label(axes: Axes, x_label: str, y_label: str, *, legend: bool) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if legend:
        axes.legend(loc="best", labelcolor=INK)


def _running_mean(y: np.ndarray) -> np.ndarray:
    """Mean over a centred window of a 25th of the curve; at the ends over what there is of it."""
    window = np.ones(max(3, len(y) // 25 | 1))
    return np.convolve(y, window, "same") / np.convolve(np.ones(len(y)), window, "same")


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points, each the mean of a stretch of the curve."""
    if len(x) <= _MOST_POINTS:
        return x, y
    starts = np.linspace(0, len(x), _MOST_POINTS, endpoint=False).astype(np.int64)
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts
