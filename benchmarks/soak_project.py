"""The small project that `soak` runs night after night, and its processes."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import psutil
import yaml
from scipy.io import loadmat

from benchmarks.start import PERSONSEARCH, SCENES, SMALL, TRACKS, StartBenchmark, end_apis
from data_catalog.synthetic import write_mot17, write_prw
from data_catalog.synthetic.matlab import cells, write_mat
from flows.cli.demo import demo_config
from flows.config.raw import read_raw
from flows.run.embedded_api import FOLDER, IDLE_MINUTES
from storage.locks import is_held

POOL, WINDOW, PER_NIGHT = 48, 12, 3
"""Training images that are drawn, that the dataset has, and that change each night."""
DISK_MEGABYTES = 1_500
BURST, BURSTS = 60, 3
"""Requests at once: four times the connections that the API may have to its database."""
SCORE_THRESHOLD = 0.0
"""A detector of a few steps is unsure of everyone, and an empty index answers no query."""
CHANGES = (
    *SMALL,
    "detector.train=[{dataset: tracks, split: train}]",  # so that only features and what follows are new
    "run.checkpoint_seconds=1",
)


@dataclass
class Project:
    """Its dataset is a window of a pool of scenes; `can_fill` if its store has a disk of its own."""

    commands: StartBenchmark
    rng: random.Random
    can_fill: bool
    run_seconds: float = 20.0
    peak: int = 0
    kills: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.commands.folder

    @property
    def store(self) -> Path:
        return self.folder / "disk" / "store"

    @property
    def root(self) -> Path:
        return self.folder / "data" / "prw"

    @property
    def index(self) -> Path:
        return self.folder / "people"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self, *words: object) -> psutil.Popen:
        """A command of the project in a process of its own."""
        environment = self.commands.environment(self.commands.home) | {IDLE_MINUTES: "60"}
        with self.log.open("ab") as log:
            command = [sys.executable, *PERSONSEARCH, *map(str, words)]
            return psutil.Popen(command, env=environment, stdout=log, stderr=log)

    def end(self, process: psutil.Popen) -> int:
        """The exit status of a command; meanwhile the memory of its largest process is noted."""
        while process.poll() is None:
            self._note_peak(process)
            time.sleep(0.2)
        return int(process.returncode)

    def run(self, store: Path, *more: object) -> psutil.Popen:
        """A run up to the evaluation; a report has no digest to compare."""
        words = ("run", self.commands.config, "--store", store, "--until", "evaluation")
        return self.start(*words, *more)

    def must(self, *words: object) -> None:
        """Note a fault if a command fails."""
        status = self.end(self.start(*words))
        self.expect(
            status == 0, f"{' '.join(map(str, words[:2]))} ended with status {status}: {self.last_line()}"
        )

    def update_index(self, *more: object) -> None:
        """Bring the index of the dataset's images up to date."""
        self.must("index", self.root / "frames", "--out", self.index, "--device", "cpu", *more)

    def expect(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)

    def last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def api(self) -> int | None:
        """The process of the Prefect API that all runs share."""
        locks = (self.commands.home / FOLDER).glob("*.lock")
        return next((pid for lock in locks if (pid := is_held(lock)) is not None), None)

    def open_all_connections(self) -> None:
        """Make the API open all connections to its database that it may have.

        SQLAlchemy keeps 5 open and allows 10 more at once, whose files SQLite keeps open for the next ones.
        So a busy night opens files that stay open, up to a bound; any more are a leak.
        """
        (address,) = (self.commands.home / FOLDER).glob("*.url")
        url = address.read_text().partition(" ")[2]
        with httpx.Client(timeout=120) as client, ThreadPoolExecutor(BURST) as pool:

            def ask(_: int) -> bool:
                return client.post(f"{url}/flow_runs/filter", json={"limit": 1}).is_success

            for _ in range(BURSTS):
                self.expect(all(pool.map(ask, range(BURST))), "the API did not answer many requests at once")

    def family(self, process: psutil.Popen) -> list[psutil.Process]:
        """A command's processes, without the API."""
        try:
            found = [process, *process.children(recursive=True)]
        except psutil.Error:
            return []
        return [each for each in found if each.pid != self.api()]

    def _note_peak(self, process: psutil.Popen) -> None:
        for each in self.family(process):
            try:
                self.peak = max(self.peak, each.memory_info().rss)
            except psutil.Error:
                continue


@contextmanager
def prepared(folder: Path, seed: int) -> Iterator[Project]:
    """A pool of scenes, a first run, its exported model, and an index."""
    (folder / "disk").mkdir()
    with _disk_of_its_own(folder / "disk") as mounted:
        write_prw(folder / "pool", replace(SCENES, train_images=POOL), seed=5)
        write_mot17(folder / "data" / "mot17", TRACKS, seed=5)
        commands = StartBenchmark(folder, _write_config(folder), 1, ())
        project = Project(commands, random.Random(seed), can_fill=mounted)
        move_window(folder / "pool", project.root, 0)
        try:
            started = time.monotonic()
            status = project.end(project.run(project.store))
            project.expect(status == 0, f"the first run failed: {project.last_line()}")
            project.run_seconds = time.monotonic() - started
            project.must("export", project.commands.config, folder / "model", "--store", project.store)
            project.update_index("--model", folder / "model", "--score-threshold", SCORE_THRESHOLD)
            project.open_all_connections()
            if project.faults:
                raise RuntimeError(project.faults[0])
            yield project
        finally:
            end_apis(project.commands.home)


def _write_config(folder: Path) -> Path:
    """The demo's config with its changes, as a file that `store gc --keep` can be given."""
    roots = [
        f"datasets.{name}.root={folder}/data/{data}"
        for name, data in (("scenes", "prw"), ("tracks", "mot17"))
    ]
    raw = read_raw(demo_config(), (*roots, *CHANGES), str(folder / "disk" / "store"))
    path = folder / "nightly.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(raw))))
    return path


@contextmanager
def _disk_of_its_own(folder: Path) -> Iterator[bool]:
    """A small file system at a folder, where this user may mount one."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def move_window(pool: Path, root: Path, night: int) -> None:
    """Make `root` a PRW of the pool's test images and of a window of its training images."""
    listed = loadmat(pool / "frame_train.mat")["img_index_train"].ravel()
    names = [str(entry.ravel()[0].ravel()[0]) for entry in listed]
    first = night * PER_NIGHT
    window = [names[at % len(names)] for at in range(first, first + WINDOW)]
    for kind, ending in (("frames", ".jpg"), ("annotations", ".jpg.mat")):
        (root / kind).mkdir(parents=True, exist_ok=True)
        gone = {f"{name}{ending}" for name in set(names) - set(window)}
        for path in (pool / kind).iterdir():
            if path.name in gone:
                (root / kind / path.name).unlink(missing_ok=True)
            elif not (root / kind / path.name).exists():
                shutil.copy2(path, root / kind)
    for name in ("frame_test.mat", "ID_test.mat", "ID_train.mat", "query_info.txt"):
        if not (root / name).exists():
            shutil.copy2(pool / name, root)
    write_mat(root / "frame_train.mat", "img_index_train", cells(cells([name]) for name in window))
