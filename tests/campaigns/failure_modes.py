"""Make things go wrong, and write a table of faults and outcomes.

    python -m tests.campaigns.failure_modes --out docs/failure-modes.md

Each trial is a function that returns what happened, in a few words, or raises AssertionError if the outcome
is wrong. A full or read-only disk needs the right to mount a tmpfs, and a wrong clock the program `faketime`;
without them the trial is skipped, and the table says so.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.soak import fill
from flows.run.embedded_api import IDLE_MINUTES
from flows.run.prefect_api import api
from storage.local import LocalStore
from tests.campaigns.kill_campaign import Digests, digests, undisturbed
from tests.end_to_end.commands import PROJECT, Outcome, begin, command, personsearch
from tests.end_to_end.tiny import (
    CHECKPOINTS,
    STAGES,
    draw_tiny_data,
    tiny_settings,
    write_tiny_config,
)
from tests.forking import Program


@dataclass(frozen=True)
class Place:
    """A finished run, whose copies are broken, and the digests of its artifacts."""

    folder: Path
    config: Path
    expected: Digests

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """A copy of the finished store."""
        with self.empty() as store:
            shutil.copytree(self.folder / "store", store, symlinks=True)
            yield store

    @contextmanager
    def empty(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder) / "store"

    def run(self, store: Path, *more: object, json_to: Path | None = None) -> Outcome:
        return personsearch("run", self.config, "--store", store, *more, json_to=json_to)

    def same(self, store: Path) -> bool:
        return digests(LocalStore(store)) == self.expected


def flipped_bytes(place: Place) -> str:
    """Flip one byte of every kind of file."""
    rng = random.Random(0)
    kinds: dict[str, Path] = {}
    for path in sorted((place.folder / "store").rglob("*")):
        relative = path.relative_to(place.folder / "store")
        if path.is_file() and path.stat().st_size and not relative.parts[0].startswith("."):
            kinds.setdefault(f"{relative.parts[0]}/{relative.name}", relative)
    missed = []
    with place.copy() as store:
        for name, relative in kinds.items():
            path = store / relative
            before, times = path.read_bytes(), path.stat()
            position = rng.randrange(len(before))
            path.write_bytes(
                before[:position] + bytes([before[position] ^ 1 << rng.randrange(8)]) + before[position + 1 :]
            )
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            kind, key = relative.parts[:2]
            if not LocalStore(store).verify(kind, key):
                missed.append(name)
            path.write_bytes(before)
    assert not missed, missed
    return f"`store verify` names each of {len(kinds)} files, although their times were restored"


def flipped_byte_and_run(place: Place) -> str:
    """Flip a byte of the cached features, then run the pipeline."""
    with place.copy() as store:
        for path in (store / "features").rglob("c/0/*/*/*"):
            data = bytearray(path.read_bytes())
            data[7] ^= 1
            path.write_bytes(data)
        outcome = place.run(store)
        assert outcome.status == 0 and "was set aside" in outcome.stderr, outcome.stderr
        assert place.same(store)
    return "set aside, named and rebuilt; all else cached; same digests"


def store_deleted_while_running(place: Place) -> str:
    with place.empty() as store:
        said = store.with_name("said")
        life = begin("run", place.config, "--store", store, output=said, error=said)
        _wait_for(lambda: any((store / ".work" / "detector").rglob("*.pt")), life)
        shutil.rmtree(store, ignore_errors=True)
        ended = life.wait(600)
        assert ended == 0 or said.read_text().strip().splitlines()[-1].startswith("error: "), said.read_text()
        assert place.run(store).status == 0 and place.same(store)
    return f"that run ends with exit status {ended}; the next rebuilds everything; same digests"


def artifact_deleted(place: Place) -> str:
    with place.copy() as store:
        shutil.rmtree(store / "features")
        assert place.run(store).status == 0 and place.same(store)
    return "rebuilt; what depends on it stays cached; same digests"


def read_only_store(place: Place) -> str:
    with _tmpfs(place.folder, 400) as mount:
        shutil.copytree(place.folder / "store", mount / "store")
        shutil.rmtree(mount / "store" / "evaluation")
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        outcome = place.run(mount / "store")
        assert outcome.status == 2 and "read-only" in outcome.stderr, outcome.stderr
    return f"`{_error(outcome)}`"


def full_disk(place: Place) -> str:
    """The disk of the store is full when a stage starts, for each stage in turn."""
    said = []
    with _tmpfs(place.folder, 2000) as mount:
        store = mount / "store"
        for stage in STAGES:
            if stage.startswith("ingest:t"):
                continue
            before = STAGES[: STAGES.index(stage)]
            if before:
                made = place.run(store, "--until", before[-1])
                assert made.status == 0, (before[-1], made.stderr[-1500:])
            ballast = mount / "ballast"
            fill(ballast)
            outcome = place.run(store, "--until", stage)
            said_so = re.search(r"disk is full|needs .* free: free some", outcome.stderr)
            assert outcome.status == 2 and said_so, (stage, outcome.stderr[-3000:])
            said.append(stage)
            ballast.unlink()
        assert place.run(store).status == 0 and place.same(store)
    return (
        f"{', '.join(said)}: exit status 2, one line, no traceback; with free space the run finishes with "
        "the same digests"
    )


def two_runs_at_once(place: Place) -> str:
    return _at_once(place, 2)


def four_runs_at_once(place: Place) -> str:
    return _at_once(place, 4)


def clock_jumps(place: Place) -> str:
    """The clock is correct, then a year behind, then two days ahead while the stages run."""
    with place.empty() as store:
        for shift, until in (("+0d", "detector"), ("-365d", "reid"), ("+2d", "report")):
            words = command("run", place.config, "--store", store, "--until", until)
            faked = ["faketime", "-f", shift, *words]
            done = subprocess.run(faked, cwd=PROJECT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        assert place.same(store)
        states = set(place.run(store, json_to=store.parent / "outcome.json").states.values())
        assert states == {"cached"}, states
    return "times affect no key and no decision; same digests, all cached afterwards"


def unknown_files(place: Place) -> str:
    """Unrelated files in the store."""
    with place.copy() as store:
        (store / "notes.txt").write_text("mine")
        (store / "features" / "notes.txt").write_text("mine")
        (store / "features" / "not-an-artifact").mkdir()
        assert place.run(store).status == 0 and place.same(store)
    return "ignored"


TRIALS: dict[str, Callable[[Place], str]] = {
    "a byte flips in a file of every kind": flipped_bytes,
    "a byte of cached features flips, then a run": flipped_byte_and_run,
    "an artifact is deleted by hand": artifact_deleted,
    "the whole store is deleted during training": store_deleted_while_running,
    "the store contains unrelated files": unknown_files,
    "two runs on one store at the same time": two_runs_at_once,
    "four runs on one store at the same time": four_runs_at_once,
    "the clock jumps back a year, then ahead": clock_jumps,
    "the store is read-only": read_only_store,
    "the disk is full as each stage begins": full_disk,
}
NEEDS_A_MOUNT = {"the store is read-only", "the disk is full as each stage begins"}


def prepare(folder: Path) -> Place:
    """Data, a config and a finished store under `folder`."""
    draw_tiny_data(folder)
    config = write_tiny_config(folder, ".", run=tiny_settings(".", "store")["run"] | CHECKPOINTS)
    return Place(folder, config, undisturbed(config, folder / "store"))


def may_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True)
        if made.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return made.returncode == 0


def _at_once(place: Place, count: int) -> str:
    with place.empty() as store:
        store.parent.mkdir(exist_ok=True)
        said = [store.with_name(f"said{number}") for number in range(count)]
        lives = [begin("run", place.config, "--store", store, output=file, error=file) for file in said]
        ends = [life.wait(1800) for life in lives]
        assert ends == [0] * count, [file.read_text() for file in said]
        assert place.same(store)
        logs = list((store / ".logs").rglob("*.log"))
        made = len(place.expected)
        assert len(logs) == made
    return f"all succeed; {made} artifacts, each built once; same digests"


@contextmanager
def _tmpfs(folder: Path, megabytes: int) -> Iterator[Path]:
    mount = Path(tempfile.mkdtemp(dir=folder))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)
        mount.rmdir()


def _wait_for(condition: Callable[[], bool], life: Program) -> None:
    while not condition():
        assert life.poll() is None, "the run ended too early"
        time.sleep(0.1)


def _error(outcome: Outcome) -> str:
    return outcome.stderr.strip().splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the table here, in Markdown")
    parser.add_argument("--only", help="only trials whose names contain this text")
    arguments = parser.parse_args()
    rows, failed = [], False
    with tempfile.TemporaryDirectory(prefix="failure-modes-") as folder:
        os.environ["PREFECT_HOME"] = str(Path(folder) / "prefect")
        os.environ[IDLE_MINUTES] = "0"
        with api():
            place = prepare(Path(folder))
            mounting = may_mount()
            for name, trial in TRIALS.items():
                if arguments.only and arguments.only not in name:
                    continue
                if name in NEEDS_A_MOUNT and not mounting:
                    rows.append((name, "skipped: no permission to mount"))
                    continue
                if trial is clock_jumps and shutil.which("faketime") is None:
                    rows.append((name, "skipped: the program `faketime` is not installed"))
                    continue
                try:
                    outcome = trial(place)
                except AssertionError as error:
                    outcome, failed = f"WRONG: {error}", True
                rows.append((name, outcome.replace(folder, "...")))
                print(f"{name}: {rows[-1][1]}", flush=True)
    table = "\n".join(
        ["# Failure modes", "", "| fault | outcome |", "|---|---|"]
        + [f"| {name} | {outcome} |" for name, outcome in rows]
        + ["", "Made by `python -m tests.campaigns.failure_modes`.", ""]
    )
    if arguments.out is not None:
        arguments.out.write_text(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
