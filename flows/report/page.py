"""The report page: one self-contained HTML file without scripts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flows.report.content import ReportContent

_FOLDER = "template"


def render(content: ReportContent, *, with_origin: bool = True) -> str:
    """The report as HTML; without its origin it depends on the results only.

    The template escapes everything that comes from data (names, ids, paths).
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name(_FOLDER)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "duration": _duration, "mebibytes": _mebibytes}
    style = Markup((Path(__file__).with_name(_FOLDER) / "style.css").read_text())
    shown = content if with_origin else replace(content, origin=None)
    return environment.get_template("report.html.j2").render(report=shown, style=style)


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _mebibytes(size: int | None) -> str:
    if size is None:
        return "–"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
