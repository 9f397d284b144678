"""What fuzzing has found stays mended; and a few new inputs per target. `make fuzz` tries many more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.careless import FAULTS

PROJECT = Path(__file__).resolve().parents[2]


def fuzzed(*options: str) -> subprocess.CompletedProcess[str]:
    """`python -m tests.fuzz` in a process of its own, which forks and has no threads."""
    command = [sys.executable, "-m", "tests.fuzz", *options]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=600)


OTHERS = ["config", "study", "mat", "images", "weights", "score", "zarr", "store", "index", "judge", "model"]


@pytest.mark.parametrize(
    ("targets", "examples"),
    [(OTHERS, 3), (["dataset market1501", "dataset yolo"], 8)],  # the others have tests of damaged files
)
def test_hostile_input_is_read_or_refused_in_one_line(targets: list[str], examples: int) -> None:
    done = fuzzed("--examples", str(examples), "--target", *targets)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_must_not_happen_is_noticed() -> None:
    done = fuzzed("--target", "careless", "--examples", "0")
    assert done.returncode == 1 and all(fault in done.stdout for fault in FAULTS), done.stdout + done.stderr
