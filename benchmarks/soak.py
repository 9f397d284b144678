"""Many nights of a small pipeline: do memory, open files and the store stay small, and all results the same?

A dataset's window moves: each night some images come and the oldest go. The pipeline runs, is killed, runs
beside another, meets a full disk or files from the future, and runs again until it is done. The evaluation is
tagged, what nothing needs is collected, and an index is brought up to date and searched, by a command and
through the page, which is served all the time. The same config in an empty store must give the same digests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import httpx
import psutil
import typer

from benchmarks.options import VAR, Folder, temporary_folder
from benchmarks.serving import RunningServer, running_server
from benchmarks.soak_project import Project, move_window, prepared
from benchmarks.timing import Measurement, report
from flows.cli.json_file import Json
from storage.folders import size_of
from storage.manifest import FILE_NAME, read_manifest

KEPT_TAGS = 2
_MOST_TRIES = 12
_DAY = 86_400


@dataclass(frozen=True)
class Night:
    """What a night left: bytes of the store after the collection, memory and open files of the two processes
    that stay, and the largest process of the runs. `faults` are things that must not happen.
    """

    number: int
    event: str
    seconds: float
    kills: int
    artifacts: int
    artifact_bytes: int
    other_bytes: int
    """Of the store: records, logs, notes."""
    run_bytes: int
    api_bytes: int
    api_files: int
    page_bytes: int
    page_files: int
    faults: tuple[str, ...] = ()


def measure_soak(
    folder: Path, minutes: float, seed: int, nights: list[dict[str, Any]]
) -> Iterator[Measurement]:
    """Nights until the time is over, each appended to `nights`; then how much has grown, and the faults."""
    until = time.monotonic() + 60 * minutes
    with prepared(folder, seed) as soak, running_server(soak.index, "cpu") as page:
        found: list[Night] = []
        while time.monotonic() < until or len(found) < 2:
            found.append(_night(soak, page, len(found)))
            nights.append(asdict(found[-1]))
            yield _figure("nights", f"{len(found)}: {found[-1].event}", found, found[-1].seconds, "s")
        yield from _compared(found)


def _night(soak: Project, page: RunningServer, number: int) -> Night:
    events = [event for event in EVENTS if soak.can_fill or event != "full disk"]
    event = events[number % len(events)]
    soak.faults, soak.peak, soak.kills = [], 0, 0
    started = time.monotonic()
    move_window(soak.folder / "pool", soak.root, number + 1)
    EVENTS[event](soak)
    made = _finished(soak)
    _compare_with_nothing(soak, made)
    _keep_house(soak, made, number)
    _search(soak, page)
    artifacts = [path for path in soak.store.glob("[a-z]*/*") if (path / FILE_NAME).exists()]
    artifact_bytes = sum(size_of(path) for path in artifacts)
    api, served = _process(soak.api()), page.process
    return Night(
        number + 1,
        event,
        round(time.monotonic() - started, 1),
        soak.kills,
        len(artifacts),
        artifact_bytes,
        size_of(soak.store) - artifact_bytes,
        soak.peak,
        api.memory_info().rss if api else 0,
        _open_files(api) if api else 0,
        served.memory_info().rss,
        _open_files(served),
        tuple(soak.faults),
    )


def _undisturbed(soak: Project) -> None:
    status = soak.end(soak.run(soak.store))
    soak.expect(status == 0, f"a run ended with status {status}: {soak.last_line()}")


def _killed(soak: Project) -> None:
    """Kill a process of the run at a random moment, twice."""
    for _ in range(2):
        life = soak.run(soak.store)
        moment = time.monotonic() + soak.rng.uniform(0.05, 0.35) * soak.run_seconds
        while life.poll() is None and time.monotonic() < moment:
            time.sleep(0.05)
        family = soak.family(life)
        if life.poll() is None and family:
            soak.rng.choice(family).kill()
            soak.kills += 1
        soak.end(life)  # of a killed stage the run itself makes another


def _two_at_once(soak: Project) -> None:
    lives = [soak.run(soak.store) for _ in range(2)]
    ends = [soak.end(life) for life in lives]
    soak.expect(ends == [0, 0], f"two runs at once ended with {ends}: {soak.last_line()}")


def _full_disk(soak: Project) -> None:
    """The disk fills up while a run is under way."""
    life = soak.run(soak.store)
    time.sleep(soak.rng.uniform(0.1, 0.6) * soak.run_seconds)
    ballast = soak.store.parent / "ballast"
    fill(ballast)
    status = soak.end(life)
    said = soak.last_line()
    ballast.unlink()
    soak.expect(status in (0, 2), f"on a full disk a run ended with status {status}: {said}")


def fill(path: Path) -> None:
    """Write a file until its disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue


def _files_from(days: int) -> Callable[[Project], None]:
    """Date all files of the dataset this many days from now, as after a jump of the clock."""

    def event(soak: Project) -> None:
        moment = time.time() + days * _DAY
        for path in soak.root.rglob("*"):
            os.utime(path, (moment, moment))
        _undisturbed(soak)

    return event


EVENTS: dict[str, Callable[[Project], None]] = {
    "kill -9": _killed,
    "two runs at once": _two_at_once,
    "undisturbed": _undisturbed,
    "full disk": _full_disk,
    "files from next year": _files_from(365),
    "files from the past": _files_from(-3650),
}


def _finished(soak: Project) -> dict[str, Path]:
    """The folders of all artifacts by stage, after as many runs as it takes."""
    outcome = soak.folder / "outcome.json"
    for _ in range(_MOST_TRIES):
        outcome.unlink(missing_ok=True)
        if soak.end(soak.run(soak.store, "--json", outcome)) == 0:
            stages = json.loads(outcome.read_text())["stages"]
            return {stage["stage"]: Path(stage["path"]) for stage in stages}
    raise RuntimeError(f"no run is finished after {_MOST_TRIES} tries: {soak.last_line()}")


def _compare_with_nothing(soak: Project, made: dict[str, Path]) -> None:
    """The same config in an empty store gives the same digests."""
    store, outcome = soak.folder / "from-nothing", soak.folder / "from-nothing.json"
    if soak.end(soak.run(store, "--json", outcome)) != 0:
        soak.faults.append(f"the run in an empty store failed: {soak.last_line()}")
        return
    for stage in json.loads(outcome.read_text())["stages"]:
        equal = _digest(made[stage["stage"]]) == _digest(Path(stage["path"]))
        soak.expect(equal, f"{stage['stage']} differs from one built from scratch")
    shutil.rmtree(store)


def _digest(artifact: Path) -> str:
    return read_manifest(artifact / FILE_NAME).content_digest


def _keep_house(soak: Project, made: dict[str, Path], number: int) -> None:
    """Tag the evaluation, take back the oldest tag, and collect what neither tags nor the config need."""
    evaluation = made["evaluation"]
    soak.must("store", "tag", f"evaluation/{evaluation.name}", f"night-{number}", "--store", soak.store)
    if number >= KEPT_TAGS:
        soak.must("store", "untag", f"night-{number - KEPT_TAGS}", "--store", soak.store)
    soak.must("store", "gc", "--store", soak.store, "--keep", soak.commands.config, "--delete")
    soak.must("store", "verify", "--store", soak.store)


def _search(soak: Project, page: RunningServer) -> None:
    """Bring the index up to date; find someone in it by a command and through the page."""
    soak.update_index()
    query = next((soak.root / "frames").iterdir())
    soak.must("search", soak.index, "--query", query, "--whole-image", "--device", "cpu")
    for number in range(20):
        answer = httpx.get(f"{page.url}/api/search", params={"row": number % 4}, timeout=60)
        soak.expect(answer.status_code == 200, f"the page answered {answer.status_code}: {answer.text[:200]}")


def _process(pid: int | None) -> psutil.Process | None:
    try:
        return None if pid is None else psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _open_files(process: psutil.Process) -> int:
    return int(process.num_fds())


def _figure(
    group: str, name: str, nights: Sequence[Night], value: float, unit: str, at_most: float | None = None
) -> Measurement:
    seconds = mean(night.seconds for night in nights)
    return Measurement(group, name, seconds, len(nights), value, unit, at_most=at_most)


def _compared(nights: Sequence[Night]) -> Iterator[Measurement]:
    """The last third of the nights against the first, without those in which caches and tags fill up."""
    steady = nights[KEPT_TAGS - 1 :] if len(nights) > KEPT_TAGS else nights
    third = max(1, len(steady) // 3)
    growth = "last third of the nights / first"
    for name, at_most in (
        ("artifact_bytes", 1.05),
        ("other_bytes", None),
        ("run_bytes", 1.15),
        ("api_bytes", 1.15),
        ("api_files", 1.1),
        ("page_bytes", 1.15),
        ("page_files", 1.1),
    ):
        first, last = (
            mean(getattr(night, name) for night in part) for part in (steady[:third], steady[-third:])
        )
        yield _figure(growth, name, nights, last / max(first, 1), "times", at_most)
    faults = [fault for night in nights for fault in night.faults]
    yield _figure("all nights", "kills", nights, sum(night.kills for night in nights), "")
    yield _figure("all nights", "faults", nights, len(faults), "", at_most=0)


def soak(
    minutes: Annotated[float, typer.Option(min=0, help="How long; the night under way is finished.")] = 60,
    seed: Annotated[int, typer.Option(help="Decides on the moments of kills.")] = 0,
    folder: Folder = VAR,
    json_file: Json = None,
) -> None:
    """Run a small project night after night: growth, kills, a full disk, collections, searches.

    Example: personsearch benchmark soak --minutes 10
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that processes end, and the disk is unmounted
    nights: list[dict[str, Any]] = []
    with temporary_folder("soak", folder) as temporary:
        measured = measure_soak(temporary, minutes, seed, nights)
        report(measured, {"minutes": minutes, "seed": seed, "nights": nights}, json_file)
