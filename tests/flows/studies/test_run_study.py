"""A small study with real processes: killed, resumed, and found finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from personsearch_core.checksums import listed_files, problems
from storage.manifest import read_manifest
from tests.end_to_end.tiny import draw_tiny_data
from tests.flows.run.test_processes import is_gone
from tests.flows.studies.files import write_study

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


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "flows.cli.main", *map(str, words)]


def kill_when(process: subprocess.Popen[str], words: str) -> None:
    """Kill -9 once the output has the words."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()


def built(store: Path) -> dict[str, float]:
    found = sorted(store.glob("*/*/manifest.json"))
    return {f"{path.parts[-3]}/{path.parts[-2]}": path.stat().st_mtime for path in found}


@pytest.mark.slow
def test_a_killed_study_resumes_and_a_failed_member_leaves_a_hole(tmp_path: Path) -> None:
    draw_tiny_data(tmp_path / "data")
    study = write_study(tmp_path, STUDY)
    words = command("study", "run", study, "--parallel", 1, "--json", tmp_path / "out.json")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    kill_when(first, "building features of good")
    assert is_gone(first.pid)
    before = built(tmp_path / "store")
    assert {name.partition("/")[0] for name in before} == {"ingest", "detector"}

    second = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert second.returncode == 2, second.stderr  # what the failed member was given is refused
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
