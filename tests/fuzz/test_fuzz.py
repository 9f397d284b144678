"""What fuzzing has found stays mended; and a few new inputs per target. `make fuzz` tries many more."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.forking import Program
from tests.fuzz.careless import FAULTS


@dataclass(frozen=True)
class Ended:
    """The exit status of a campaign, and what it printed."""

    status: int
    said: str


def fuzzed(folder: Path, *options: str) -> Ended:
    """`python -m tests.fuzz` in a process of its own, which forks and has no threads."""
    printed = folder / "printed"
    status = Program(_main, options, output=printed, error=printed).wait(600)
    return Ended(status, printed.read_text())


def _main(options: tuple[str, ...]) -> None:
    from tests.fuzz.__main__ import main

    sys.argv = ["fuzz", *options]
    sys.exit(main())


OTHERS = ["config", "study", "mat", "images", "weights", "score", "zarr", "store", "index", "judge", "model"]


@pytest.mark.parametrize(
    ("targets", "examples"),
    [(OTHERS, 3), (["dataset market1501", "dataset yolo"], 8)],  # the others have tests of damaged files
)
def test_hostile_input_is_read_or_refused_in_one_line(
    targets: list[str], examples: int, tmp_path: Path
) -> None:
    done = fuzzed(tmp_path, "--examples", str(examples), "--target", *targets)
    assert done.status == 0, done.said


def test_what_must_not_happen_is_noticed(tmp_path: Path) -> None:
    done = fuzzed(tmp_path, "--target", "careless", "--examples", "0")
    assert done.status == 1 and all(fault in done.said for fault in FAULTS), done.said
