"""Plots as inline SVG that takes its colours from the page, so that it works in light and dark mode.

matplotlib draws with placeholder colours, which are replaced by the variables of the style sheet.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, PercentFormatter, StrMethodFormatter

P = ParamSpec("P")
Series = tuple[str, np.ndarray, np.ndarray]
"""Label, x (n,), y (n,)."""

INK, GRID = "#010101", "#020202"
SERIES = tuple(f"#0a0a{number:02x}" for number in range(1, 9))
_LONGEST_LABEL = 24
_VARIABLES = {INK: "var(--muted)", GRID: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)
}
_DASHES = ("-", "--", ":")
_SMOOTH_FROM = 60
"""Curves with at least this many points get a running mean over the noisy line."""
_MARKED_BELOW = 25
_MOST_POINTS = 300
_WIDTH, _HEIGHT, _LEGEND_ROW = 3.9, 2.5, 0.17
"""In inches; a plot of this width fills a phone's screen with its type in full size."""
_LONG_LABEL = 24
"""In characters; longer labels are stacked, not placed side by side."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # keep text as text: smaller, and in the font of the page
    "svg.hashsalt": "personsearch",  # same plot, same ids
    "text.parse_math": False,  # a dollar sign in a name is literal
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


def on_axes(draw: Callable[Concatenate[Axes, P], None]) -> Callable[P, Markup]:
    """What a function puts on axes, as inline SVG, with a legend of all labelled lines above the axes."""

    @wraps(draw)
    def drawn(*args: P.args, **settings: P.kwargs) -> Markup:
        with matplotlib.rc_context(_STYLE):
            figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
            FigureCanvasSVG(figure)
            axes = figure.add_subplot()
            draw(axes, *args, **settings)
            labels = axes.get_legend_handles_labels()[1]
            if labels:
                columns = 1 if max(map(len, labels)) > _LONG_LABEL else 2
                figure.set_figheight(_HEIGHT + _LEGEND_ROW * -(-len(labels) // columns))
                figure.legend(loc="outside upper left", ncols=columns, labelcolor=INK)
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return Markup(_for_page(buffer.getvalue()))

    return drawn


@on_axes
def line_plot(
    axes: Axes,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    markers: bool = False,
    log_x: bool = False,
    whole_x: bool = False,
    level: tuple[str, float] | None = None,
) -> None:
    """Lines on shared axes; y values are fractions, shown in percent.

    `markers`: the lines have few points, each with its own tick.
    `level`: a labelled horizontal line. `whole_x`: x runs from 0 to 100 %. Lines with an empty label are not
    in the legend.
    """
    for number, (label, x, y) in enumerate(series):
        colour, dashes = _look(number)
        marker = "o" if markers else None
        axes.plot(x, y, dashes, color=colour, label=label or None, marker=marker, markersize=4)
    if level is not None:
        axes.axhline(level[1], color=INK, linestyle=":", linewidth=1, label=level[0])
    if whole_x:
        axes.set_xlim(0, 102)
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    if markers:
        places = sorted({float(x) for _, xs, _ in series for x in xs})
        axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    axes.set(xlabel=x_label, ylabel=y_label)


@on_axes
def history_plot(
    axes: Axes,
    series: Sequence[Series],
    boundaries: Sequence[float],
    *,
    noisy: bool = True,
    log_y: bool = False,
) -> None:
    """Curves over steps, with dotted lines at `boundaries`. Long noisy ones get a running mean on top."""
    for number, (label, x, y) in enumerate(series):
        colour, dashes = _look(number)
        marker = "o" if len(y) < _MARKED_BELOW else None
        if noisy and len(y) >= _SMOOTH_FROM:
            axes.plot(*_thinned(x, y), color=colour, alpha=0.3, linewidth=0.8)
            y = _running_mean(y)
        axes.plot(*_thinned(x, y), dashes, color=colour, label=label, marker=marker, markersize=3)
    for boundary in boundaries:
        axes.axvline(boundary, color=INK, linestyle=":", linewidth=1)
    if log_y:
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("step")


@on_axes
def histogram(axes: Axes, values: np.ndarray, x_label: str, y_label: str) -> None:
    """The distribution of fractions (n,) over 0 to 1."""
    counts, edges = np.histogram(values, bins=20, range=(0, 1))
    axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.9, align="edge", color=SERIES[0])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="x", visible=False)
    axes.set(xlabel=x_label, ylabel=y_label)


@on_axes
def bar_plot(
    axes: Axes,
    edges: Sequence[float],
    counts: Sequence[int],
    x_label: str,
    y_label: str,
    *,
    whole: bool = False,
) -> None:
    """Bars between each two of `edges` (n + 1,), as wide as they are apart, `counts` (n,) high.

    `whole`: x values are whole numbers, and so are its ticks.
    """
    axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.94, align="edge", color=SERIES[0])
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=whole))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="x", visible=False)
    axes.set(xlabel=x_label, ylabel=y_label)


@on_axes
def group_plot(
    axes: Axes, labels: Sequence[str], fractions: Sequence[float], x_label: str, y_label: str
) -> None:
    """A bar from 0 to 100 % per group, with its label below and its percentage on top."""
    places = range(len(labels))
    axes.bar(places, fractions, width=0.7, color=SERIES[0])
    for place, fraction in zip(places, fractions, strict=True):
        axes.annotate(
            f"{100 * fraction:.0f}", (place, fraction), (0, 2), textcoords="offset points", ha="center"
        )
    axes.set_xticks(places, labels)
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    axes.grid(axis="x", visible=False)
    axes.set(xlabel=x_label, ylabel=y_label)


def shortened(label: str) -> str:
    """A label that leaves room for what it labels."""
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


@on_axes
def interval_plot(axes: Axes, rows: Sequence[tuple[str, float, float, float]], x_label: str) -> None:
    """A point with its interval per row, (label, value, low, high), the first at the top; zero is marked."""
    places = np.arange(len(rows))
    values, low, high = (np.array([row[at] for row in rows]) for at in (1, 2, 3))
    axes.axvline(0, color=INK, linewidth=1, linestyle=":")
    axes.errorbar(values, places, xerr=[values - low, high - values], fmt="o", color=SERIES[0], markersize=4)
    axes.set_yticks(places, [row[0] for row in rows])
    axes.set(xlabel=x_label, ylim=(len(rows) - 0.5, -0.5))


def _for_page(svg: str) -> str:
    """The bare <svg> element in the colours of the page, without fixed size and group ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return re.sub(r"\n\s*", "\n", svg)


def _look(number: int) -> tuple[str, str]:
    return SERIES[number % len(SERIES)], _DASHES[number // len(SERIES) % len(_DASHES)]


def _running_mean(y: np.ndarray) -> np.ndarray:
    """Mean over a centred window of 1/25 of the curve, cut off at its ends."""
    half = max(1, len(y) // 50)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    first = np.maximum(np.arange(len(y)) - half, 0)
    last = np.minimum(np.arange(len(y)) + half + 1, len(y))
    return np.asarray((sums[last] - sums[first]) / (last - first))


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most _MOST_POINTS points, each the mean of a section of the curve."""
    if len(x) <= _MOST_POINTS:
        return x, y
    starts = np.linspace(0, len(x), _MOST_POINTS, endpoint=False).astype(np.int64)
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts
