"""The tables of a study as data and as text: JSON, Parquet, Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from flows.studies.cells import CellValue, FilledTable
from flows.studies.models import Column, Unit
from flows.studies.walks import MemberOutcome

_DIGITS: dict[Unit, int] = {"percent": 1, "ms": 1, "s": 1, "ratio": 2, "number": 2}
_UNITS: dict[Unit, str] = {"percent": "%", "ms": "ms", "s": "s", "ratio": "x", "number": ""}
HOLE = "–"
PARTIAL = "*"

CELLS = pa.schema(
    [
        ("table", pa.string()),
        ("row", pa.string()),
        ("column", pa.string()),
        ("ran", pa.bool_()),
        ("unit", pa.string()),
        ("value", pa.float64()),
        ("deviation", pa.float64()),
        ("seeds", pa.int32()),
        ("published", pa.float64()),
        ("artifacts", pa.list_(pa.string())),
        ("hole", pa.string()),
    ]
)


def as_data(tables: Iterable[FilledTable]) -> dict[str, Any]:
    """All tables by name. Values, deviations and published values are in the column's unit, percent or ms."""
    return {filled.table.name: _table_data(filled) for filled in tables}


def _table_data(filled: FilledTable) -> dict[str, Any]:
    table = filled.table
    return {
        "title": table.title,
        "caption": table.caption,
        "source": table.source,
        "columns": {
            name: {"title": column.title, "unit": column.unit} for name, column in table.columns.items()
        },
        "rows": [
            {
                "name": row.name,
                "title": row.title,
                "ours": row.ours,
                "cells": {name: _cell_data(cell) for name, cell in row.cells.items()},
            }
            for row in filled.rows
        ],
        "published_rows": [
            {
                "name": name,
                "title": row.title or name,
                "note": row.note,
                "cells": {column: {"published": value} for column, value in row.published.items()},
            }
            for name, row in table.published_rows.items()
        ],
    }


def _cell_data(cell: CellValue) -> dict[str, Any]:
    body: dict[str, Any] = {
        "value": cell.value,
        "published": cell.published,
        "artifact": cell.artifacts[0] if cell.artifacts else None,
    }
    if len(cell.artifacts) > 1:
        body |= {
            "deviation": cell.deviation,
            "values": list(cell.values),
            "artifacts": list(cell.artifacts),
        }
    if cell.hole is not None:
        body["hole"] = cell.hole
    return body


def as_parquet(tables: Iterable[FilledTable]) -> pa.Table:
    """One row per cell, those of published rows included (`ran` is false)."""
    rows: list[dict[str, Any]] = []
    for filled in tables:
        units = {name: column.unit for name, column in filled.table.columns.items()}
        for row in filled.rows:
            rows += [
                {
                    "table": filled.table.name,
                    "row": row.name,
                    "column": column,
                    "ran": True,
                    "unit": units[column],
                    "value": cell.value,
                    "deviation": cell.deviation,
                    "seeds": len(cell.values),
                    "published": cell.published,
                    "artifacts": list(cell.artifacts),
                    "hole": cell.hole,
                }
                for column, cell in row.cells.items()
            ]
        for name, published in filled.table.published_rows.items():
            rows += [
                {
                    "table": filled.table.name,
                    "row": name,
                    "column": column,
                    "ran": False,
                    "unit": units[column],
                    "published": value,
                }
                for column, value in published.published.items()
            ]
    return pa.Table.from_pylist(rows, schema=CELLS)


def heading(column: Column) -> str:
    """A column's title with its unit."""
    unit = _UNITS[column.unit]
    return f"{column.title}, {unit}" if unit else column.title


def shown(cell: CellValue, unit: Unit) -> str:
    """A cell as text: the value with its deviation, and the published value in brackets."""
    if cell.value is None:
        text = HOLE
    else:
        text = published_text(cell.value, unit)
        if cell.deviation is not None:
            text += f" ± {published_text(cell.deviation, unit)}"
        if cell.hole is not None:
            text += PARTIAL
    return text if cell.published is None else f"{text} ({published_text(cell.published, unit)})"


def published_text(value: float, unit: Unit) -> str:
    if unit == "number" and value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{_DIGITS[unit]}f}"


def text_rows(filled: FilledTable) -> list[list[str]]:
    """The table's lines as text: the name of the row, then its cells; published rows are in brackets."""
    columns = filled.table.columns
    lines = [
        [row_title(row.title, row.ours), *(shown(row.cells[name], columns[name].unit) for name in columns)]
        for row in filled.rows
    ]
    for name, row in filled.table.published_rows.items():
        values = {
            column: f"({published_text(value, columns[column].unit)})"
            for column, value in row.published.items()
        }
        lines.append([f"{row.title or name}, published", *(values.get(column, "") for column in columns)])
    return lines


def row_title(title: str, ours: bool) -> str:
    return f"{title} (ours)" if ours else title


def legend(filled: FilledTable) -> str:
    """What stands in brackets, what a hole is, and what is to be said of published rows."""
    parts = []
    if filled.table.source:
        parts.append(f"In brackets: published values, {filled.table.source}.")
    if any(cell.deviation is not None for cell in filled.cells):
        parts.append("± is the standard deviation over seeds.")
    if filled.table.is_ranked:
        first = next(iter(filled.table.columns.values()))
        parts.append(f"Rows are sorted by {first.title}: the best one is chosen on the test set.")
    if any(cell.values and cell.hole is not None for cell in filled.cells):
        parts.append(f"{PARTIAL} marks a mean over fewer seeds than requested.")
    if any(cell.value is None for cell in filled.cells):
        parts.append(f"{HOLE} marks a missing value.")
    noted: dict[str, list[str]] = {}
    for name, row in filled.table.published_rows.items():
        if row.note:
            noted.setdefault(row.note, []).append(row.title or name)
    return " ".join([*parts, *(f"{', '.join(rows)}: {note}" for note, rows in noted.items())])


def holes_of(tables: Iterable[FilledTable]) -> list[str]:
    """Why cells are empty, each reason once."""
    found: dict[str, list[str]] = {}
    for filled in tables:
        for row in filled.rows:
            for cell in row.cells.values():
                if cell.hole is not None:
                    found.setdefault(cell.hole, []).append(row.title)
    return [f"{', '.join(dict.fromkeys(rows))}: {why}" for why, rows in found.items()]


def as_markdown(title: str, tables: Iterable[FilledTable]) -> str:
    """All tables as one Markdown text."""
    parts = [f"# {markdown_text(title)}"]
    for filled in tables:
        head = ["", *(heading(column) for column in filled.table.columns.values())]
        lines = [_markdown_line(head), _markdown_line(["---", *["---:"] * (len(head) - 1)], markdown=True)]
        lines += [_markdown_line(line) for line in text_rows(filled)]
        parts += [f"## {markdown_text(filled.table.title)}", "\n".join(lines)]
        parts += [markdown_text(text) for text in (filled.table.caption, legend(filled)) if text]
    return "\n\n".join(parts) + "\n"


def _markdown_line(cells: Sequence[str], *, markdown: bool = False) -> str:
    return f"| {' | '.join(cells if markdown else map(markdown_text, cells))} |"


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text.replace("\n", " "))


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "–": "--",
}


def latex_text(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_LATEX.get(character, character) for character in text.replace("\n", " "))


def as_latex(tables: Iterable[FilledTable]) -> str:
    """One `table` per table, with the rules of the package booktabs."""
    return "\n".join(["% needs \\usepackage{booktabs}", *(_latex_table(filled) for filled in tables)])


def _latex_table(filled: FilledTable) -> str:
    columns = filled.table.columns
    head = ["", *(heading(column) for column in columns.values())]
    texts = (f"{filled.table.title}.", filled.table.caption, legend(filled))
    caption = " ".join(text for text in texts if text)
    ran, published = text_rows(filled)[: len(filled.rows)], text_rows(filled)[len(filled.rows) :]
    body = [_latex_line(line) for line in ran]
    if published:
        body += [r"\midrule", *(_latex_line(line) for line in published)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"\toprule",
            _latex_line(head),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_line(cells: Sequence[str]) -> str:
    line = " & ".join(map(latex_text, cells))
    # LaTeX would take them for arguments of the line break before.
    protected = f"{{}}{line}" if line.startswith(("[", "*")) else line
    return f"{protected} \\\\"


def member_table(members: Iterable[MemberOutcome]) -> pa.Table:
    """Name, settings, error, and the artifact of every stage of each member."""
    text = pa.map_(pa.string(), pa.string())
    schema = pa.schema(
        [("name", pa.string()), ("settings", text), ("error", pa.string()), ("artifacts", text)]
    )
    rows = [
        {name: list(value.items()) if isinstance(value, dict) else value for name, value in row.items()}
        for row in (each.as_data() for each in members)
    ]
    return pa.Table.from_pylist(rows, schema=schema)
