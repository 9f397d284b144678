"""Everything that waits for a GPU, as one table: the tests that need one, then the benchmarks.

    python -m benchmarks.gpu WORK [--other CHECKOUT] [--only tests,extraction,reid,compiled,pipeline]

Each part is a process with a time limit: one that fails or takes too long leaves a row and its log, and the
next begins. The limits add up to 15 minutes, 19 with --other. Where a command has ten minutes, two take all:

    python -m benchmarks.gpu WORK --only tests,extraction,reid,compiled,pipeline
    python -m benchmarks.gpu WORK --other CHECKOUT --only earlier,loops

WORK keeps the rows of each part, and the table has those of all parts that ran on this device. CHECKOUT, of
an earlier version, runs its detector loops, against which ours are held if they run in the same command.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import typer

from benchmarks.options import PROGRAM, Device, Work, chosen, run_script
from flows.cli.json_file import STANDARD_OUTPUT, Json, write_json
from flows.cli.printing import plain_table, whole_lines
from flows.config.devices import torch_device

HERE = Path(__file__).resolve().parents[1]
RECORDED = {"training": 145.0, "inference": 296.0}
"""Images per second of the quickest way on the H200, 2026-11-26: see docs/benchmarks.md."""
PROMISED = {"training": 2.0, "inference": 3.0}
"""Times as fast as then."""
OURS_ALONE = "--ours-alone"
"""The option by which `detector_loop` leaves out torchvision's."""
NVJPEG_TEST = "tests/personsearch_core/data/test_network_input.py::test_nvjpeg_shows_what_the_cpu_shows"


@dataclass(frozen=True)
class CheckedFigure:
    """One figure; `holds` is None where nothing is promised of it."""

    part: str
    what: str
    figure: str
    promised: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class CommandPart:
    """A command that writes a file (by `--json`, if it does not say), what that says, and the time it has.

    `fresh` is a folder of the command's own that must not be there when it starts.
    """

    words: Sequence[str]
    rows: Callable[[Path], Iterator[CheckedFigure]]
    seconds: int
    folder: Path = HERE
    fresh: Path | None = None


def _parts(work: Path, device: str, other: Path | None, tiny: bool) -> dict[str, CommandPart]:
    """By name, in the order in which they run; `earlier` needs another checkout."""
    there = HERE if other is None else other.absolute()
    loops = [sys.executable, "-m", "benchmarks.detector_loop", "--device", device]
    loops += ["--size", "96", "--batch", "2", "--steps", "2", "--rounds", "1"] if tiny else []
    loops += [] if tiny else ["--batch", "10", "--steps", "40", "--rounds", "2", "--passes", "10"]
    bench = [*PROGRAM, "benchmark"]
    place = ["--device", device, "--folder", str(work)]
    few, rounds = (["--rounds", "1" if tiny else count] for count in ("3", "5"))
    shards = ["--shards", "1" if tiny else "8"]  # nothing goes on beside the last one's write
    rows = ["--rows", "256", "--batch", "8"] if tiny else []
    graphs = ["--size", "96", "--batch", "2", "--backbone", "resnet18"] if tiny else ["--batch", "10"]
    graphs += ["--precision", "bf16", "--channels-last", *rounds, "--device", device]
    less = ["--set", "detector.training.steps=2", "--until", "detector"] if tiny else []
    nothing = work / "from-nothing"
    demo = [*PROGRAM, "demo", "--folder", str(nothing), "--set", f"run.device={device}", *less]
    tests = [sys.executable, "-m", "pytest", "-q", "tests/personsearch_core/test_cuda.py", NVJPEG_TEST]
    return {
        "tests": CommandPart([*tests, f"--junitxml={work / 'tests.json'}"], _of_tests, 190),
        "earlier": CommandPart([*loops, *_ours_alone(there)], _of_earlier, 250, there),
        "loops": CommandPart(loops, _of_loops, 300),
        "extraction": CommandPart([*bench, "extraction", *few, *shards, *place], _of_figures, 90),
        "reid": CommandPart([*bench, "reid", *rounds, *place, *rows], _of_figures, 90),
        "compiled": CommandPart([*bench, "compiled", *graphs], _of_compiled, 80),
        "pipeline": CommandPart(demo, _of_pipeline, 120, fresh=nothing),
    }


def _ours_alone(checkout: Path) -> list[str]:
    """`OURS_ALONE`, if that version has it."""
    loops = checkout / "benchmarks" / "detector_loop.py"
    known = loops.is_file() and f'"{OURS_ALONE}"' in loops.read_text()
    return [OURS_ALONE] if known else []


def _of_tests(file: Path) -> Iterator[CheckedFigure]:
    suites = list(ElementTree.parse(file).getroot().iter("testsuite"))
    count = {
        name: sum(int(suite.get(name, "0")) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    }
    bad = count["failures"] + count["errors"]
    passed = count["tests"] - bad - count["skipped"]
    figure = f"{passed} passed, {bad} failed, {count['skipped']} skipped"
    yield CheckedFigure("tests", "those that need a GPU", figure, "all pass", passed == count["tests"])


def _of_loops(file: Path) -> Iterator[CheckedFigure]:
    """Held against the other checkout's if this command has run them (see `main`), else the recorded."""
    rates: dict[str, float] = json.loads(file.read_text())
    earlier = file.with_name("earlier.json")
    before = json.loads(earlier.read_text()) if earlier.exists() else None
    for name, rate in rates.items():
        if name != "overhead":
            yield CheckedFigure("loops", name, f"{rate:.1f} images/s")
    for task, promised in PROMISED.items():
        best = _best(rates, task)
        yield CheckedFigure(
            "loops", f"{task}, best against torchvision", f"{best / rates[f'{task}, torchvision']:.2f} x"
        )
        then, named = (
            (RECORDED[task], "the H200's of 2026-11-26")
            if before is None
            else (_best(before, task), "the other checkout's")
        )
        row = f"{task}, best against {named} ({then:.0f} images/s)"
        yield CheckedFigure("loops", row, f"{best / then:.2f} x", f">= {promised:g}", best >= promised * then)


def _best(rates: dict[str, float], task: str) -> float:
    return max(rate for name, rate in rates.items() if name.startswith(f"{task}, ours"))


def _of_earlier(file: Path) -> Iterator[CheckedFigure]:
    for name, rate in json.loads(file.read_text()).items():
        if name != "overhead":
            yield CheckedFigure("earlier", name, f"{rate:.1f} images/s")


def _of_figures(file: Path) -> Iterator[CheckedFigure]:
    for one in json.loads(file.read_text())["figures"]:
        bound = f"<= {one['at_most']:g}" if one["at_most"] is not None else ""
        bound = f">= {one['at_least']:g}" if one["at_least"] is not None else bound
        what = f"{one['group']}: {one['name']}"
        yield CheckedFigure(file.stem, what, f"{one['value']:.3g} {one['unit']}", bound, one["holds"])


def _of_compiled(file: Path) -> Iterator[CheckedFigure]:
    for one in json.loads(file.read_text()):
        yield CheckedFigure(
            "compiled", one["part"], f"{one['compiled']:.1f} images/s, {one['ratio']:.2f} x eager"
        )
        yield CheckedFigure("compiled", f"{one['part']}, to compile it", f"{one['compilation']:.0f} s")


def _of_pipeline(file: Path) -> Iterator[CheckedFigure]:
    outcome: dict[str, Any] = json.loads(file.read_text())
    yield CheckedFigure("pipeline", "from nothing", f"{outcome['wall_seconds']:.1f} s")
    for stage in outcome["stages"]:
        if stage["seconds"] is not None:
            yield CheckedFigure("pipeline", f"stage {stage['stage']}", f"{stage['seconds']:.1f} s")


def _run(part: CommandPart, file: Path) -> str | None:
    """Why it failed, or None; its processes end with it."""
    try:
        return _run_process(part, file)
    except OSError as error:
        return f"could not run: {error}"


def _run_process(part: CommandPart, file: Path) -> str | None:
    file.unlink(missing_ok=True)
    if part.fresh is not None and part.fresh.exists():
        shutil.rmtree(part.fresh)
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


def _rows(name: str, part: CommandPart, file: Path) -> list[CheckedFigure]:
    """What a part found, after it has run; where it failed, a row says why."""
    why = _run(part, file)
    rows = [] if why is None else [CheckedFigure(name, "the command", why, holds=False)]
    try:
        return [*rows, *part.rows(file)] if file.exists() else rows
    except (ValueError, KeyError, ElementTree.ParseError) as error:  # it was stopped while it wrote
        return [*rows, CheckedFigure(name, "its figures", f"cannot be read: {error!r}", holds=False)]


def _recorded(file: Path, device: str) -> list[CheckedFigure]:
    """The rows of a part in WORK, if they are of this device."""
    if not file.exists():
        return []
    record: dict[str, Any] = json.loads(file.read_text())
    return [CheckedFigure(**row) for row in record["rows"]] if record["device"] == device else []


def _print(rows: Sequence[CheckedFigure], title: str) -> None:
    table = plain_table("part", "what", "figure", "promised", "", title=title)
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
    where = torch.cuda.get_device_name(on) if on.type == "cuda" else "CPU"
    title = f"{where}, torch {torch.__version__}"
    work = work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    parts = _parts(work, str(on), other, tiny)
    able = [name for name in parts if name != "earlier" or other is not None]
    wanted = able if only is None else chosen("--only", only, able)
    (work / "earlier.json").unlink(missing_ok=True)  # another run's would be of another hour
    records = {name: work / f"{name}.rows.json" for name in parts}
    for name in (each for each in parts if each in wanted):
        print(f"{name}: up to {parts[name].seconds} s", file=sys.stderr)
        records[name].unlink(missing_ok=True)
        found = _rows(name, parts[name], work / f"{name}.json")
        write_json(records[name], _as_data(title, found))
        for row in found:
            print(f"  {row.what}: {row.figure}", file=sys.stderr)
        if json_file != STANDARD_OUTPUT:
            write_json(json_file, _as_data(title, _all(records, title)))
    rows = _all(records, title)
    _print(rows, title)
    write_json(json_file, _as_data(title, rows))


def _all(records: Mapping[str, Path], device: str) -> list[CheckedFigure]:
    return [row for file in records.values() for row in _recorded(file, device)]


def _as_data(device: str, rows: Sequence[CheckedFigure]) -> dict[str, Any]:
    return {"device": device, "rows": [asdict(row) for row in rows]}


if __name__ == "__main__":
    run_script(main, __doc__)
