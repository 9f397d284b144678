"""A small study with real processes: killed, resumed, and found finished."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from personsearch_core.checksums import listed_files, problems
from storage.manifest import read_manifest
from tests.end_to_end.commands import begin, personsearch
from tests.end_to_end.tiny import draw_tiny_data
from tests.flows.run.test_processes import is_gone
from tests.flows.studies.files import write_study
from tests.forking import Program

STUDY = """\
title: Two members <b>
config: tiny.yaml
set: {detector.training.steps: 1, "detector.train": [{dataset: scenes, split: train}]}
members:
  good: {until: features}
  broken: {until: reid, set: {reid.lr: 1.0e+30}}
tables:
  a:
    title: Table A
    source: somewhere
    columns: {rows: {title: rows, stage: features, metric: rows, unit: number}}
    rows: {good: {title: Good, published: {rows: 22.5}}}
    published_rows: {NPSM: {published: {rows: 24}}}
  b:
    title: Table B
    columns: {loss: {title: loss, stage: reid, metric: loss, unit: number}}
    rows: {broken: {}}
"""


def kill_when(program: Program, printed: Path, words: str) -> None:
    """Kill -9 once the output has the words."""
    while words not in (printed.read_text() if printed.exists() else ""):
        assert program.poll() is None, printed.read_text()
        time.sleep(0.005)
    program.kill()
    program.wait()


def built(store: Path) -> dict[str, float]:
    found = sorted(store.glob("*/*/manifest.json"))
    return {f"{path.parts[-3]}/{path.parts[-2]}": path.stat().st_mtime for path in found}


@pytest.mark.slow
def test_a_killed_study_resumes_and_a_failed_member_leaves_a_hole(tmp_path: Path) -> None:
    draw_tiny_data(tmp_path / "data")
    study = write_study(tmp_path, STUDY)
    words = ("study", "run", study, "--parallel", 1, "--json", tmp_path / "out.json")
    printed = tmp_path / "printed"
    first = begin(*words, output=printed, error=printed)
    kill_when(first, printed, "building features of good")
    assert is_gone(first.pid)
    before = built(tmp_path / "store")
    assert {name.partition("/")[0] for name in before} == {"ingest", "detector"}

    second = personsearch(*words)
    assert second.status == 2, second.stderr  # what the failed member was given is refused
    assert "1 of 2 members failed; broken: reid: loss is" in second.stderr
    after = built(tmp_path / "store")
    assert {name: after[name] for name in before} == before  # nothing is built twice
    assert "0 of 2: building features of good" in second.stderr
    assert "Table A: Good: rows 22.00 (22.50)" in second.stderr

    body = json.loads((tmp_path / "out.json").read_text())
    cell = body["tables"]["a"]["rows"][0]["cells"]["rows"]
    kind, _, key = cell["artifact"].partition("/")
    manifest = read_manifest(tmp_path / "store" / kind / key / "manifest.json")
    assert (kind, cell["value"], cell["published"]) == ("features", manifest.metrics["rows"], 22.5)
    hole = body["tables"]["b"]["rows"][0]["cells"]["loss"]
    assert hole["value"] is None and "reid: loss is" in hole["hole"]
    assert [row["name"] for row in body["tables"]["a"]["published_rows"]] == ["NPSM"]

    html, latex = tmp_path / "page.html", tmp_path / "tables.tex"
    chosen = ["study", "run", str(study), "--rows", "Good", "--html", str(html), "--latex", str(latex)]
    again = CliRunner().invoke(app, chosen)
    assert again.exit_code == 0, again.output
    assert "built nothing" in again.output and built(tmp_path / "store") == after
    assert "Two members &lt;b&gt;" in html.read_text() and r"\begin{tabular}" in latex.read_text()
    for folder in (tmp_path / "store" / ".studies").iterdir():
        noted = listed_files(folder)
        assert "report.html" in noted and not problems(folder, noted)
