"""Tables as data and as text."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flows.studies.cells import CellValue, FilledRow, FilledTable
from flows.studies.members import StudyTable
from flows.studies.models import Column, PublishedRow
from flows.studies.output import (
    as_data,
    as_latex,
    as_markdown,
    as_parquet,
    holes_of,
    latex_text,
    markdown_text,
)

COLUMNS = {
    "mAP": Column(title="mAP", metric="mAP"),
    "ms": Column(title="time", metric="x", unit="ms"),
}


def table(*rows: FilledRow, **changes: Any) -> FilledTable:
    fields = {
        "name": "a",
        "title": "Table 1 (a): 50 % & more",
        "caption": "Not comparable_.",
        "source": "Loesch et al. 2019",
        "columns": COLUMNS,
        "rows": (),
        "published_rows": {"NPSM": PublishedRow(published={"mAP": 24.2}, note="5 boxes")},
    }
    return FilledTable(StudyTable(**(fields | changes)), rows)


def cell(*values: float, published: float | None = None, hole: str | None = None) -> CellValue:
    return CellValue(values, tuple(f"evaluation/{at}" for at in range(len(values))), published, hole)


J3 = FilledRow("j3", "J3", {"mAP": cell(22.51, published=22.5), "ms": cell(7.25)})
SEEDS = FilledRow("oim", "OIM", {"mAP": cell(1.0, 3.0), "ms": cell(hole="reid: the loss is nan")}, ours=True)


def test_json_has_the_values_their_artifacts_and_the_published() -> None:
    body = as_data([table(J3, SEEDS)])["a"]
    assert [row["name"] for row in body["rows"]] == ["j3", "oim"]
    assert body["rows"][0]["cells"]["mAP"] == {
        "value": 22.51,
        "published": 22.5,
        "artifact": "evaluation/0",
    }
    mean = body["rows"][1]["cells"]["mAP"]
    assert (mean["value"], mean["values"]) == (2.0, [1.0, 3.0])
    assert mean["deviation"] == pytest.approx(2**0.5)
    assert mean["artifacts"] == ["evaluation/0", "evaluation/1"]
    assert body["rows"][1]["cells"]["ms"] == {
        "value": None,
        "published": None,
        "artifact": None,
        "hole": "reid: the loss is nan",
    }
    assert body["published_rows"] == [
        {"name": "NPSM", "title": "NPSM", "note": "5 boxes", "cells": {"mAP": {"published": 24.2}}}
    ]
    assert body["columns"]["ms"]["unit"] == "ms" and body["caption"] == "Not comparable_."


def test_parquet_tells_published_rows_from_those_that_ran() -> None:
    rows = as_parquet([table(J3, SEEDS)]).to_pylist()
    assert [(row["row"], row["column"], row["ran"]) for row in rows] == [
        ("j3", "mAP", True),
        ("j3", "ms", True),
        ("oim", "mAP", True),
        ("oim", "ms", True),
        ("NPSM", "mAP", False),
    ]
    assert (rows[2]["value"], rows[2]["seeds"], rows[4]["value"], rows[4]["published"]) == (
        2.0,
        2,
        None,
        24.2,
    )


def test_markdown_shows_names_as_they_are() -> None:
    text = as_markdown("A *study*", [table(J3, SEEDS)])
    assert text.startswith("# A \\*study\\*\n")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "|  | mAP, % | time, ms |"
    assert lines[2] == "| J3 | 22.5 (22.5) | 7.2 |"
    assert lines[3] == "| OIM (ours) | 2.0 ± 1.4 | – |"
    assert lines[4] == "| NPSM, published | (24.2) |  |"
    assert all(line.count(" | ") == 2 for line in lines)
    assert "Not comparable\\_." in text and "± is the standard deviation" in text
    assert markdown_text("a|b <i> [x](y) #") == r"a\|b \<i\> \[x\](y) \#"


def test_notes_of_published_rows_stand_below_the_table() -> None:
    noted = {
        "NPSM": PublishedRow(published={"mAP": 24.2}, note="5 boxes."),
        "IAN": PublishedRow(published={"mAP": 23.0}, note="3 boxes."),
        "Liu2018": PublishedRow(title="Liu 2018", published={"mAP": 21.0}, note="3 boxes."),
        "I-Net": PublishedRow(published={"mAP": 1.0}),
    }
    told = "NPSM: 5 boxes. IAN, Liu 2018: 3 boxes."
    filled = [table(J3, published_rows=noted)]
    assert told in as_markdown("A study", filled) and told in as_latex(filled)


def test_latex_escapes_what_it_would_interpret() -> None:
    text = as_latex([table(J3, SEEDS)])
    assert r"50 \% \& more" in text and r"2.0 $\pm$ 1.4 & --" in text
    body = re.search(r"\\midrule\n(.*?)\\midrule\n(.*?)\\bottomrule", text, re.S)
    assert body is not None
    assert body[1].count("\\\\\n") == 2 and "NPSM" in body[2]
    assert all(line.count("&") - line.count("\\&") == 2 for line in body[1].strip().splitlines())
    assert latex_text("a_b{c}~^\\$#") == (r"a\_b\{c\}\textasciitilde{}\textasciicircum{}\textbackslash{}\$\#")


def test_a_row_is_no_argument_of_the_line_break_before() -> None:
    text = as_latex([table(FilledRow("x", "[a|b] *", {"mAP": cell(1.0), "ms": cell(2.0)}))])
    assert text.startswith("% needs \\usepackage{booktabs}\n")
    assert "\n{}[a\\textbar{}b] * & 1.0 & 2.0 \\\\\n" in text


def test_holes_are_told_once_each() -> None:
    hole = FilledRow("x", "X", {"mAP": cell(hole="a: died"), "ms": cell(hole="a: died")})
    assert holes_of([table(hole, SEEDS)]) == ["X: a: died", "OIM: reid: the loss is nan"]
