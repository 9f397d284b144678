"""Everything that waits for a GPU, in one run of at most 12 minutes (17 with --other), as one table.

    python -m benchmarks.gpu WORK [--other CHECKOUT] [--only tests,loops,extraction,reid,pipeline]

The tests that need a GPU, then the benchmarks, each in a process with a time limit: one that fails or takes
too long leaves a row and its log, and the next begins. WORK keeps what each part found, so that parts can be
run one by one. CHECKOUT, of an earlier version, runs its detector loops in the same run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import typer
from rich.table import Table

from benchmarks.options import PROGRAM, Device, Work, chosen, run_script
from flows.cli.json_file import Json, write_json
from flows.cli.printing import whole_lines
from flows.config.devices import torch_device

HERE = Path(__file__).resolve().parents[1]
RECORDED = {"training": 145.0, "inference": 296.0}
"""Images per second of the quickest way on the H200, 2026-11-26: see docs/benchmarks.md."""
PROMISED = {"training": 2.0, "inference": 3.0}
"""Times as fast as then."""
NVJPEG_TEST = "tests/personsearch_core/data/test_network_input.py::test_nvjpeg_shows_what_the_cpu_shows"


@dataclass(frozen=True)
class Row:
    """One figure; `holds` is None where nothing is promised of it."""

    part: str
    what: str
    figure: str
    promised: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class Part:
    """A command that writes a file (by `--json`, if it does not say), what that says, and the time it has."""

    words: Sequence[str]
    rows: Callable[[Path], Iterator[Row]]
    seconds: int
    folder: Path = HERE


def _parts(work: Path, device: str, other: Path | None, tiny: bool) -> dict[str, Part]:
    """By name, in the order in which they run."""
    loops = [sys.executable, "-m", "benchmarks.detector_loop", "--device", device]
    loops += ["--size", "96", "--batch", "2", "--steps", "2", "--rounds", "1"] if tiny else []
    loops += [] if tiny else ["--batch", "10", "--steps", "40", "--rounds", "2", "--passes", "10"]
    bench = [PROGRAM, "benchmark"]
    rounds = ["--rounds", "1" if tiny else "5", "--device", device, "--folder", str(work)]
    rows = ["--rows", "256", "--batch", "8"] if tiny else []
    less = ["--set", "detector.training.steps=2", "--until", "detector"] if tiny else []
    demo = [PROGRAM, "demo", "--folder", str(work / "demo"), "--set", f"run.device={device}", *less]
    tests = [sys.executable, "-m", "pytest", "-q", "tests/personsearch_core/test_cuda.py", NVJPEG_TEST]
    return {
        "tests": Part([*tests, f"--junitxml={work / 'tests.json'}"], _of_tests, 150),
        **({} if other is None else {"earlier": Part(loops, _of_earlier, 300, other.absolute())}),
        "loops": Part(loops, _of_loops, 300),
        "extraction": Part([*bench, "extraction", *rounds], _of_figures, 60),
        "reid": Part([*bench, "reid", *rounds, *rows], _of_figures, 80),
        "pipeline": Part(demo, _of_pipeline, 130),
    }


def _of_tests(file: Path) -> Iterator[Row]:
    suites = list(ElementTree.parse(file).getroot().iter("testsuite"))
    count = {
        name: sum(int(suite.get(name, "0")) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    }
    bad = count["failures"] + count["errors"]
    passed = count["tests"] - bad - count["skipped"]
    figure = f"{passed} passed, {bad} failed, {count['skipped']} skipped"
    yield Row("tests", "those that need a GPU", figure, "all pass", passed == count["tests"])


def _of_loops(file: Path) -> Iterator[Row]:
    rates: dict[str, float] = json.loads(file.read_text())
    earlier = file.with_name("earlier.json")
    before = json.loads(earlier.read_text()) if earlier.exists() else None
    for name, rate in rates.items():
        if name != "overhead":
            yield Row("loops", name, f"{rate:.1f} images/s")
    for task, promised in PROMISED.items():
        best = _best(rates, task)
        yield Row(
            "loops", f"{task}, best against torchvision", f"{best / rates[f'{task}, torchvision']:.2f} x"
        )
        then, named = (
            (RECORDED[task], "the H200's of 2026-11-26")
            if before is None
            else (_best(before, task), "the other checkout's")
        )
        row = f"{task}, best against {named} ({then:.0f} images/s)"
        yield Row("loops", row, f"{best / then:.2f} x", f">= {promised:g}", best >= promised * then)


def _best(rates: dict[str, float], task: str) -> float:
    return max(rate for name, rate in rates.items() if name.startswith(f"{task}, ours"))


def _of_earlier(file: Path) -> Iterator[Row]:
    for name, rate in json.loads(file.read_text()).items():
        if name != "overhead":
            yield Row("earlier", name, f"{rate:.1f} images/s")


def _of_figures(file: Path) -> Iterator[Row]:
    for one in json.loads(file.read_text())["figures"]:
        bound = f"<= {one['at_most']:g}" if one["at_most"] is not None else ""
        bound = f">= {one['at_least']:g}" if one["at_least"] is not None else bound
        what = f"{one['group']}: {one['name']}"
        yield Row(file.stem, what, f"{one['value']:.3g} {one['unit']}", bound, one["holds"])


def _of_pipeline(file: Path) -> Iterator[Row]:
    outcome: dict[str, Any] = json.loads(file.read_text())
    yield Row("pipeline", "from nothing", f"{outcome['wall_seconds']:.1f} s")
    for stage in outcome["stages"]:
        if stage["seconds"] is not None:
            yield Row("pipeline", f"stage {stage['stage']}", f"{stage['seconds']:.1f} s")


def _run(part: Part, file: Path) -> str | None:
    """Why it failed, or None; its processes end with it."""
    file.unlink(missing_ok=True)
    log = file.with_suffix(".log")
    to_file = [] if any(str(file) in word for word in part.words) else ["--json", str(file)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*part.words, *to_file],
            cwd=part.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(part.seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {part.seconds} s; see {log}"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return None if status == 0 else f"failed with status {status}; see {log}"


def _print(rows: Sequence[Row], title: str) -> None:
    table = Table("part", "what", "figure", "promised", "", title=title, box=None, pad_edge=False)
    for row in rows:
        kept = "" if row.holds is None else "holds" if row.holds else "missed"
        table.add_row(row.part, row.what, row.figure, row.promised, kept)
    whole_lines().print(table)


def main(
    work: Work,
    other: Annotated[Path | None, typer.Option(help="Checkout of an earlier version.")] = None,
    only: Annotated[str | None, typer.Option(help="Parts, comma-separated; by default all.")] = None,
    device: Device = "auto",
    tiny: Annotated[bool, typer.Option(help="Tiny sizes, to try the command itself.")] = False,
    json_file: Json = None,
) -> None:
    import torch

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its processes end with it, too
    on = torch_device(device)
    work = work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    parts = _parts(work, str(on), other, tiny)
    wanted = list(parts) if only is None else chosen("--only", only, parts)
    rows: list[Row] = []
    for name, part in parts.items():
        found = work / f"{name}.json"
        why = None
        if name in wanted:
            print(f"{name}: up to {part.seconds} s", file=sys.stderr)
            why = _run(part, found)
        if why is not None:
            rows.append(Row(name, "the command", why, holds=False))
        if found.exists():
            rows += part.rows(found)
    where = torch.cuda.get_device_name(on) if on.type == "cuda" else "CPU"
    title = f"{where}, torch {torch.__version__}"
    _print(rows, title)
    write_json(json_file, {"device": title, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    run_script(main, __doc__)
