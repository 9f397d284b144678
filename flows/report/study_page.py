"""The page of a study or a sweep: its tables, what is missing, and where every value comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.axes import Axes

from flows.pages.page import moment, render_page
from flows.report.content import Figure
from flows.report.page import FOLDER
from flows.report.plots import SERIES, on_axes, shortened
from flows.studies.cells import FilledTable
from flows.studies.output import heading, holes_of, legend, text_rows
from flows.studies.running import StudyResult
from flows.wording import counted

_LONG_LABEL = 8
"""Labels that are longer stand on the vertical axis."""


def render_study(result: StudyResult) -> str:
    """One self-contained HTML file."""
    cells = [cell for table in result.tables for cell in table.cells]
    filled = sum(cell.value is not None for cell in cells)
    runs = counted(len(result.members), "member")
    lead = (
        f"{filled} of {len(cells)} cells are filled, from artifacts of {runs} of {result.study.path}, as of "
        f"{moment(result.finished)}."
    )
    tables = [_page_table(number, table) for number, table in enumerate(result.tables)]
    figures, holes = list(_figures(result)), holes_of(result.tables)
    failed = list(result.failures())
    sections = [(table["id"], table["title"]) for table in tables]
    sections += [("settings", "Settings")] if figures else []
    sections += [("missing", "What is missing")] if holes or failed else []
    return render_page(
        FOLDER,
        "study.html.j2",
        title=result.study.title,
        lead=lead,
        sections=[*sections, ("origin", "Where the values come from")],
        tables=tables,
        figures=figures,
        holes=holes,
        failed=failed,
        origins=list(_origins(result)),
        runs=runs,
        members=[
            (
                each.member.name,
                each.member.config.name,
                ", ".join(f"{name}={value}" for name, value in each.member.settings.items()),
            )
            for each in result.members
        ],
    )


def _page_table(number: int, filled: FilledTable) -> dict[str, Any]:
    """A table as the template reads it. `best` is the row that is marked, and only where the text says how it
    was chosen."""
    # No line breaks within a value.
    lines = [[name, *(cell.replace(" ", "\u00a0") for cell in cells)] for name, *cells in text_rows(filled)]
    return {
        "id": f"table{number + 1}",
        "title": filled.table.title,
        "caption": filled.table.caption,
        "legend": legend(filled),
        "columns": [heading(column) for column in filled.table.columns.values()],
        "rows": lines[: len(filled.rows)],
        "published": lines[len(filled.rows) :],
        "best": 0 if filled.table.is_ranked and len(filled.rows) > 1 else None,
    }


def _origins(result: StudyResult) -> Iterator[tuple[str, str, str, str]]:
    """Table, row, column and artifacts of each value."""
    for filled in result.tables:
        for row in filled.rows:
            for name, cell in row.cells.items():
                if cell.artifacts:
                    title = filled.table.columns[name].title
                    yield filled.table.title, row.title, title, ", ".join(cell.artifacts)


def _figures(result: StudyResult) -> Iterator[Figure]:
    """Of a ranked table: its first column over each setting of the members, a point per member."""
    for filled in result.tables:
        if not filled.table.is_ranked:
            continue
        column, points = next(iter(filled.table.columns.items())), _points(filled)
        settings = {name for _, values in points for name in values}
        for name in sorted(settings - {"seed"}):
            chosen = [(values[name], value) for value, values in points if name in values]
            if len({setting for setting, _ in chosen}) > 1 and not name.endswith(".seed"):
                title = f"{column[1].title} over {name}"
                yield Figure(title, _scatter(chosen, name, heading(column[1])), "A point per member.")


def _points(filled: FilledTable) -> list[tuple[float, Mapping[str, str]]]:
    """The values of a table's first column, each with the settings of its member."""
    first = next(iter(filled.table.columns))
    return [
        (value, settings)
        for row in filled.rows
        for value, settings in zip(row.cells[first].values, row.cells[first].settings, strict=True)
    ]


@on_axes
def _scatter(axes: Axes, points: list[tuple[str, float]], setting: str, value_label: str) -> None:
    """A point per member. Long names of values stand below each other, which leaves room for the points."""
    names = list(dict.fromkeys(sorted((name for name, _ in points), key=_sort_key)))
    at = [names.index(name) for name, _ in points]
    values = [value for _, value in points]
    shown = [shortened(name) for name in names]
    ends = (-0.5, len(names) - 0.5)
    if max(map(len, shown)) > _LONG_LABEL:
        axes.scatter(values, at, color=SERIES[0], s=16, alpha=0.7)
        axes.set(xlabel=value_label, ylabel=setting, ylim=ends[::-1])
        axes.set_yticks(range(len(names)), shown)
    else:
        axes.scatter(at, values, color=SERIES[0], s=16, alpha=0.7)
        axes.set(xlabel=setting, ylabel=value_label, xlim=ends)
        axes.set_xticks(range(len(names)), shown)


def _sort_key(value: str) -> tuple[int, float, str]:
    """Sorts numbers by value, before words."""
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)
