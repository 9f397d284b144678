"""The overhead of commands: whole processes, with the import time of their libraries as the floor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.options import VAR, Folder, Rounds, temporary_folder
from benchmarks.timing import Measurement, medians_in_turn, report, seconds_of
from data_catalog.synthetic import Mot17Spec, PrwSpec, write_mot17, write_prw
from flows.cli.demo import demo_config
from flows.cli.json_file import Json
from flows.run.embedded_api import FOLDER
from storage.locks import is_held

SCENES = PrwSpec(
    train_images=12,
    test_images=8,
    width=96,
    height=96,
    train_identities=6,
    test_identities=4,
    cameras=2,
    people=(2, 3),
)
TRACKS = Mot17Spec(sequences=1, frames=3, width=96, height=96)
SMALL = (
    "detector.model.fpn_channels=16",
    "detector.model.image_width=96",
    "detector.model.image_height=96",
    "detector.training.steps=12",
    "detector.training.schedule.warmup_steps=2",
    "reid.identities_per_batch=3",
    "reid.shots=2",
    "reid.phases.0.epochs=1",
    "reid.phases.1.epochs=1",
    "evaluation.score_threshold=0.0",
    "evaluation.boxes_per_image=[]",
    "run.device=cpu",
    "run.threads=1",
)
"""Overrides of the demo's config that make every stage take a second or two."""

PERSONSEARCH = (
    "-c",
    "import sys; sys.argv[0] = 'personsearch'; from flows.cli.main import main; main()",
)
"""What the installed script does; completion depends on the program's name."""

_AT_MOST = {
    "--help": 0.3,
    "--version": 0.3,
    "fields": 0.3,
    "completion": 0.3,
    "status": 1.0,
    "plan": 1.0,
    "store ls": 1.0,
    "run, all cached": 2.0,
}
BARE = "python -c pass"
"""How long a process takes that does nothing, which tells how busy a machine is."""

_BESIDE = 4.0
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class StartBenchmark:
    """A config with its store under `folder`; `changes` are passed as `--set` to each run and plan."""

    folder: Path
    config: Path
    rounds: int
    changes: tuple[str, ...] = SMALL

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def environment(self, home: Path) -> dict[str, str]:
        own = {"PERSONSEARCH_DEMO": str(self.folder), "PREFECT_HOME": str(home)}
        return {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | own

    def run(self, words: Sequence[str], home: Path | None = None, **variables: str) -> None:
        """Run Python with these arguments, and wait for it to finish."""
        environment = self.environment(home or self.home) | variables
        done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")

    def personsearch(self, *words: str, home: Path | None = None) -> None:
        self.run([*PERSONSEARCH, *words], home)

    def pipeline(self, command: str, *words: str, home: Path | None = None) -> None:
        """`run` or `plan` of the config."""
        changes = [word for change in self.changes for word in ("--set", change)]
        self.personsearch(command, str(self.config), *changes, *words, home=home)

    def beside_the_report(self, home: Path) -> float:
        """Seconds of a run that builds only the report, minus the report's own seconds."""
        outcome = self.folder / "outcome.json"
        words = ("--from", "report", "--json", str(outcome))
        whole = seconds_of(partial(self.pipeline, "run", *words, home=home))
        made = [stage for stage in json.loads(outcome.read_text())["stages"] if stage["state"] == "made"]
        return whole - float(sum(stage["seconds"] for stage in made))


def measure_start(folder: Path, config: Path, rounds: int) -> Iterator[Measurement]:
    """Time quick commands, then runs that build only the report: with a running, a stopped and a fresh API.

    `config` is the demo's; its data and its store go under `folder`.
    """
    size = StartBenchmark(folder, config, rounds)
    write_prw(folder / "data" / "prw", SCENES, seed=5)
    write_mot17(folder / "data" / "mot17", TRACKS, seed=5)
    try:
        size.pipeline("run")
        yield from measure_commands(size)
        yield from _runs(size)
    finally:
        for home in folder.glob("home*"):
            end_apis(home)


def measure_commands(size: StartBenchmark) -> Iterator[Measurement]:
    """Time commands that build nothing, as whole processes. The config's run must have finished."""
    completion = partial(
        size.run,
        PERSONSEARCH,
        _PERSONSEARCH_COMPLETE="complete_bash",
        COMP_WORDS="personsearch st",
        COMP_CWORD="1",
    )
    contenders = {
        "python": partial(size.run, ["-c", "pass"]),
        "Python that imports Prefect's flow": partial(size.run, ["-c", "from prefect import flow, task"]),
        "--help": partial(size.personsearch, "--help"),
        "--version": partial(size.personsearch, "--version"),
        "completion": completion,
        "fields": partial(size.personsearch, "fields"),
        "status": partial(size.personsearch, "status", "--store", str(size.store)),
        "store ls": partial(size.personsearch, "store", "ls", "--store", str(size.store)),
        "plan": partial(size.pipeline, "plan"),
        "run, all cached": partial(size.pipeline, "run"),
    }
    medians = medians_in_turn(contenders, size.rounds)
    for name, seconds in medians.items():
        yield Measurement(
            "whole process", name, seconds, size.rounds, seconds, "s", at_most=_AT_MOST.get(name)
        )
    for name, seconds in medians.items():
        ratio = seconds / medians["python"]
        yield Measurement(f"{BARE} is 1", name, seconds, size.rounds, ratio, f"x {BARE}")


def _runs(size: StartBenchmark) -> Iterator[Measurement]:
    group = "a run of the report, without the report's own seconds"

    def measured(name: str, seconds: list[float], at_most: float | None = _BESIDE) -> Measurement:
        middle = median(seconds)
        return Measurement(group, name, middle, size.rounds, middle, "s", at_most=at_most)

    rounds = range(size.rounds)
    size.pipeline("run", "--from", "report")  # its API keeps running from here on
    yield measured("the API is running", [size.beside_the_report(size.home) for _ in rounds])
    starting = []
    for _ in rounds:
        end_apis(size.home)
        starting.append(size.beside_the_report(size.home))
    yield measured("the API has to start", starting)
    fresh = [size.beside_the_report(size.folder / f"home-{number}") for number in rounds]
    yield measured("a fresh home, without a database", fresh, at_most=None)


def end_apis(home: Path) -> None:
    """Stop the embedded APIs of a home folder."""
    for lock in (home / FOLDER).glob("*.lock"):
        process = is_held(lock)
        if process is not None:
            os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + _WAIT_SECONDS
        while is_held(lock) is not None and time.monotonic() < deadline:
            time.sleep(0.05)


def start(
    rounds: Rounds = 5,
    folder: Folder = VAR,
    json_file: Json = None,
) -> None:
    """Measure the overhead of commands and small runs, as whole processes.

    Example: personsearch benchmark start --rounds 3
    """
    with temporary_folder("start", folder) as temporary:
        measured = measure_start(temporary, demo_config(), rounds)
        report(measured, {"rounds": rounds}, json_file)
