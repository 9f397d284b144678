"""The report page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flows.pages.page import moment, render_page
from flows.report.content import ReportContent

FOLDER = Path(__file__).with_name("template")


def render(content: ReportContent, *, with_origin: bool = True) -> str:
    """The report as HTML; without its origin it depends on the results only."""
    shown = content if with_origin else replace(content, origin=None)
    return render_page(FOLDER, "report.html.j2", title=content.title, lead=_lead(shown), report=shown)


def _lead(content: ReportContent) -> str:
    """The first sentence, with when and from which config where the origin is told."""
    if content.origin is None:
        return content.lead
    config = f" from the config {content.origin.config}" if content.origin.config else ""
    return f"{content.lead.removesuffix('.')}; evaluated on {moment(content.origin.evaluated)}{config}."
