"""Kill the tiny pipeline at random moments, start it again, and compare with a run left alone.

    python -m tests.campaigns.kill_campaign --kills 60 --seed 0
    python -m tests.campaigns.kill_campaign --kills 20 --stage features

The victim is the flow, the process of the stage that it is building, or a Dask worker that reads a dataset.
After each kill no process of the flow may be left running, no lock may be held, and every visible artifact
must be complete. At the end of each run all content digests must equal those of a run that was left alone.
With `--stage features` all kills hit an extraction with two Dask workers of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from distributed import LocalCluster

from flows.run.embedded_api import IDLE_MINUTES
from flows.run.prefect_api import api
from storage.local import LocalStore
from tests.end_to_end.commands import begin
from tests.end_to_end.tiny import CHECKPOINTS, draw_tiny_data, tiny_settings, write_tiny_config
from tests.forking import Program

VICTIMS = ("flow", "stage", "dask worker")
ODDS = (0.5, 0.35, 0.15)
ORPHANS_GONE_SECONDS = 20.0

Digests = dict[str, str]


@dataclass
class Campaign:
    """The outcome: kills by victim and by stage, finished runs, and faults."""

    kills: Counter[str] = field(default_factory=Counter)
    during: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.kills.values())

    def report(self) -> str:
        victims = ", ".join(f"{count} x {victim}" for victim, count in sorted(self.kills.items()))
        stages = ", ".join(f"{stage} {count}" for stage, count in sorted(self.during.items()))
        lines = [
            f"{self.total} kills -9: {victims}",
            f"while building: {stages}",
            f"{self.runs} runs finished, each with the digests of a run left alone",
        ]
        return "\n".join([*lines, *(f"WRONG: {each}" for each in self.wrong)])


def run_extraction_campaign(folder: Path, *, kills: int, seed: int) -> Campaign:
    """`kills` kills while two local workers extract features: of the flow, the stage, or a worker."""
    rng = np.random.default_rng(seed)
    campaign = Campaign()
    draw_tiny_data(folder)
    views = [{"kind": "plain"}, {"kind": "jittered", "copies": 200}, {"kind": "mirrored"}]
    run = tiny_settings(".", "store")["run"] | CHECKPOINTS | {"workers": 2}
    config = write_tiny_config(folder, folder, run=run, features={"views": views})
    base = folder / "base"
    with _life(config, base, until="detector") as life:
        assert life.wait(1800) == 0, _log(base).read_text()
    shutil.copytree(base, folder / "alone")
    started = time.monotonic()
    expected = undisturbed(config, folder / "alone", until="features")
    longest = (time.monotonic() - started) / 2
    lives = Lives(config, rng, longest, "features", None)
    while campaign.total < kills and not campaign.wrong:
        store = folder / f"store{campaign.runs}"
        shutil.copytree(base, store)
        _one_store(lives, store, campaign, kills)
        if not campaign.wrong and (found := digests(LocalStore(store))) != expected:
            campaign.wrong.append(f"digests differ: {sorted(found.items() ^ expected.items())}")
        campaign.runs += 1
        shutil.rmtree(store)
    return campaign


@dataclass(frozen=True)
class Lives:
    """How runs are started and killed: anywhere or in one stage; with a cluster, or workers of their own."""

    config: Path
    rng: np.random.Generator
    longest: float
    stage: str | None
    cluster: LocalCluster | None


def run_campaign(
    folder: Path,
    *,
    kills: int,
    seed: int,
    longest: float | None = None,
) -> Campaign:
    """`kills` kills in runs of the tiny pipeline under `folder`, each within `longest` seconds of the last.

    A run that is left alone goes first. `longest` defaults to a third of its time, which lets each attempt
    progress so that every stage is hit.
    Expects a running Prefect API, so that an attempt does not start with one.
    """
    rng = np.random.default_rng(seed)
    campaign = Campaign()
    draw_tiny_data(folder)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        run = tiny_settings(".", "store")["run"] | CHECKPOINTS | {"dask": cluster.scheduler_address}
        config = write_tiny_config(folder, folder, run=run)
        started = time.monotonic()
        expected = undisturbed(config, folder / "alone")
        longest = longest or (time.monotonic() - started) / 3
        lives = Lives(config, rng, longest, None, cluster)
        while campaign.total < kills and not campaign.wrong:
            store = folder / f"store{campaign.runs}"
            _one_store(lives, store, campaign, kills)
            if campaign.wrong:
                break
            if (found := digests(LocalStore(store))) != expected:
                campaign.wrong.append(f"digests differ: {sorted(found.items() ^ expected.items())}")
            campaign.runs += 1
            shutil.rmtree(store)
    return campaign


def undisturbed(config: Path, store: Path, until: str | None = None) -> Digests:
    """The content digest of every artifact of a run that is not killed."""
    with _life(config, store, until) as life:
        assert life.wait(1800) == 0, _log(store).read_text()
    return digests(LocalStore(store))


def digests(store: LocalStore) -> Digests:
    found = {}
    for kind, key in list(store.keys()):
        artifact = store.find(kind, key)
        found[f"{kind}/{key}"] = "damaged" if artifact is None else artifact.content_digest
    return found


def _one_store(lives: Lives, store: Path, campaign: Campaign, kills: int) -> None:
    """Attempts on one store, until one of them finishes."""
    while not campaign.wrong:
        stages_killed, family = 0, list[psutil.Process]()
        with _life(lives.config, store, lives.stage) as life:
            while life.poll() is None:
                if campaign.total >= kills:
                    life.wait()
                    break
                _wait_for_stage(life, store, lives.stage)
                _wait(life, lives.rng.uniform(0, lives.longest))
                victim = str(lives.rng.choice(VICTIMS, p=ODDS))
                making, family = _making(store), _descendants(life)
                if life.poll() is not None or lives.stage not in (None, making):
                    continue
                if not _kill(victim, life, store, _worker_pids(lives.cluster, family)):
                    continue
                campaign.kills[victim] += 1
                campaign.during[making] += 1
                stages_killed += victim == "stage"
                print(f"{campaign.total:3d}: killed the {victim} while building {making}", flush=True)
                if victim == "flow":
                    break
        campaign.wrong += left_behind(family, LocalStore(store))
        if life.returncode == 0:
            return
        # A flow gives up on a stage whose process was killed three times; no other failure is allowed.
        if life.returncode != -signal.SIGKILL and stages_killed < 3:
            campaign.wrong.append(f"a run failed by itself: {_log(store).read_text()[-2000:]}")


@contextmanager
def _life(config: Path, store: Path, until: str | None = None) -> Iterator[Program]:
    store.mkdir(parents=True, exist_ok=True)
    words = ["run", config, "--store", store, *(["--until", until] if until else [])]
    life = begin(*words, output=_log(store), error=_log(store))
    try:
        yield life
    finally:
        life.kill()
        life.wait()


def _kill(victim: str, life: Program, store: Path, workers: list[int]) -> bool:
    """Kill -9 the victim; False if it is not running."""
    if victim == "flow":
        life.kill()
        return True
    if victim == "stage":
        holders = {pid for kind, key in LocalStore(store).work_areas() if (pid := _holder(store, kind, key))}
        pids = [pid for pid in holders if pid != life.pid]
    else:
        pids = workers[:1]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return bool(pids)


def _worker_pids(cluster: LocalCluster | None, family: list[psutil.Process]) -> list[int]:
    """Dask workers of the cluster, or those that a stage has started."""
    if cluster is not None:
        return [worker.pid for worker in cluster.workers.values() if worker.pid]
    return [process.pid for process in family if _is_worker(process)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "--multiprocessing-fork" in process.cmdline()
    except psutil.Error:
        return False


def _wait_for_stage(life: Program, store: Path, stage: str | None) -> None:
    while stage is not None and life.poll() is None and _making(store) != stage:
        time.sleep(0.05)


def _holder(store: Path, kind: str, key: str) -> int | None:
    return LocalStore(store).holder(kind, key)


def _descendants(life: Program) -> list[psutil.Process]:
    try:
        return psutil.Process(life.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def left_behind(family: list[psutil.Process], store: LocalStore) -> list[str]:
    """What a killed attempt has left: processes, locks, incomplete artifacts."""
    _, alive = psutil.wait_procs(family, timeout=ORPHANS_GONE_SECONDS)
    wrong = [f"an orphan process: {process}" for process in alive]
    for kind, key in store.place.work_areas():
        if (pid := store.place.holder(kind, key)) is not None:
            wrong.append(f"{kind}/{key} is locked by process {pid}")
    for kind, key in list(store.keys()):
        wrong += [f"{kind}/{key}: {problem}" for problem in store.verify(kind, key)]
    return wrong


def _making(store: Path) -> str:
    kinds = [kind for kind, key in LocalStore(store).work_areas() if _holder(store, kind, key)]
    return kinds[0] if kinds else "nothing"


def _wait(life: Program, seconds: float) -> None:
    try:
        life.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _log(store: Path) -> Path:
    return store.with_suffix(".log")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, help="maximum seconds between two kills")
    parser.add_argument("--stage", choices=["features"], help="kill only while this stage is built")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill-campaign-") as folder:
        os.environ["PREFECT_HOME"] = str(Path(folder) / "prefect")
        os.environ[IDLE_MINUTES] = "0"
        with api():
            if arguments.stage == "features":
                campaign = run_extraction_campaign(Path(folder), kills=arguments.kills, seed=arguments.seed)
            else:
                campaign = run_campaign(
                    Path(folder), kills=arguments.kills, seed=arguments.seed, longest=arguments.longest
                )
    print(campaign.report())
    print(f"seed {arguments.seed}, {time.monotonic() - started:.0f} s")
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
