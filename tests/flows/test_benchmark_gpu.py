"""The table of all that waits for a GPU: parts that fail leave a row, and promises are held against it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import gpu
from benchmarks.gpu import Part, Row

RATES = {
    "training, torchvision": 50.0,
    "training, ours": 140.0,
    "training, ours, best": 300.0,
    "our loader alone": 800.0,
    "inference, torchvision": 90.0,
    "inference, ours, best": 400.0,
    "overhead": 0.01,
}


def promised(folder: Path) -> dict[str, Row]:
    return {row.what.split(" (")[0]: row for row in gpu._of_loops(folder / "loops.json") if row.promised}


def test_loops_are_held_against_what_was_recorded_or_another_version(tmp_path: Path) -> None:
    (tmp_path / "loops.json").write_text(json.dumps(RATES))
    found = promised(tmp_path)
    assert [row.holds for row in found.values()] == [True, False]
    assert found["training, best against the H200's of 2026-11-26"].figure == "2.07 x"
    (tmp_path / "earlier.json").write_text(
        json.dumps({**RATES, "training, ours, best": 160.0, "inference, ours, best": 100.0})
    )
    found = promised(tmp_path)
    assert [row.holds for row in found.values()] == [False, True]
    assert found["inference, best against the other checkout's"].figure == "4.00 x"


def test_tests_that_are_skipped_prove_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tests.json"
    suite = '<testsuites><testsuite tests="5" failures="{}" errors="0" skipped="{}"/></testsuites>'
    for bad, skipped, holds in ((0, 0, True), (1, 0, False), (0, 5, False)):
        file.write_text(suite.format(bad, skipped))
        (row,) = gpu._of_tests(file)
        assert row.holds is holds and f"{5 - bad - skipped} passed" in row.figure


def test_a_part_that_fails_or_takes_too_long_says_so(tmp_path: Path) -> None:
    def run(code: str, seconds: int = 20) -> str | None:
        words = [sys.executable, "-c", code]
        return gpu._run(Part(words, gpu._of_figures, seconds), tmp_path / "part.json")

    assert run("import pathlib, sys; pathlib.Path(sys.argv[-1]).write_text('{}')") is None
    assert (tmp_path / "part.json").read_text() == "{}"
    failed = run("print('no such GPU'); raise SystemExit(3)")
    assert failed is not None and "failed with status 3" in failed
    assert (tmp_path / "part.log").read_text() == "no such GPU\n" and not (tmp_path / "part.json").exists()
    assert "stopped after 1 s" in str(run("import time; time.sleep(60)", 1))
