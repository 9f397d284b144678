"""`benchmark start` on a finished run: times every command, and a run that builds only the report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks.start import StartBenchmark, measure_commands
from tests.end_to_end.conftest import TinyRun


def test_commands_and_a_run_of_the_report_are_measured(tiny_run: TinyRun, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.folder, tmp_path / "tiny")
    folder = tmp_path / "tiny"
    size = StartBenchmark(folder, folder / tiny_run.config.name, rounds=1, changes=())
    measured = list(measure_commands(size))
    found = {one.name: one for one in measured if one.unit == "s"}
    ratios = {one.name: one.value for one in measured if one.unit != "s"}
    assert ratios == {name: one.seconds / found["python"].seconds for name, one in found.items()}
    assert {name for name, one in found.items() if one.at_most is None} == {
        "python",
        "Python that imports Prefect's flow",
    }
    assert all(one.seconds > 0 for one in found.values())
    pages = folder / "store" / "report"
    before = {path: path.stat().st_mtime_ns for path in pages.rglob("report.html")}
    assert size.beside_the_report(Path(os.environ["PREFECT_HOME"])) > 0
    assert before.keys() == set(pages.rglob("report.html"))
    assert all(path.stat().st_mtime_ns > time for path, time in before.items()), "only the report was built"
