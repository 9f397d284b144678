"""Kill stages that take rows from an earlier artifact, start them again, and compare digests.

    python -m tests.campaigns.growth_kills --kills 20 --seed 0

Every kill is a `kill -9` of the stage's process, at a random moment of its work. Afterwards no lock may be
held, and when a stage is made its digest must be that of a store that never held an earlier artifact.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.growing import GrowingScenes, Timed, in_process, make_stages, write_config
from flows.errors import StageFailed
from flows.plan.states import Planned
from flows.run.making import begin_in_process
from personsearch_core.models.detector import build_detector
from storage.local import LocalStore
from storage.store import Artifact, Store
from tests.personsearch_core.scene_files import TINY

KINDS = ("features", "detections")
SETTINGS = {
    "roi": {"variant": "j3", "roi_height": 16, "roi_width": 8},
    "features": {"views": [{"kind": "plain"}, {"kind": "mirrored"}], "batch_images": 4},
    "detections": {"max_per_image": 10, "batch_images": 4},
    "run": {"device": "cpu", "threads": 1},
}
BEFORE = {"train": range(100, 500), "test": range(10, 410)}
AFTER = {"train": [*range(100, 300), *range(305, 560)], "test": range(450)}
"""Images come before, between and after those that were there, and some go."""


@dataclass
class Killer:
    """Makes stages, and kills their processes `kills` times in all."""

    kills: int
    rng: np.random.Generator
    seconds: Mapping[str, float]
    done: Counter[str] = field(default_factory=Counter)
    points: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def make(self, planned: Planned, store: Store, artifacts: Mapping[str, Artifact]) -> Artifact:
        kind, identity = planned.stage.kind, planned.identity
        assert identity is not None
        while kind in KINDS and self.done.total() < self.kills:
            begun = begin_in_process(planned, store, artifacts)
            time.sleep(self.seconds[kind] * self.rng.uniform(0, 1))
            if not begun.process.child.is_running():
                return begun.artifact(on_progress=_silent)
            begun.process.child.signal(signal.SIGKILL, group=True)
            self.done[kind] += 1
            with contextlib.suppress(StageFailed):
                begun.artifact(on_progress=_silent)
            point = planned.stage.resume_point
            self.points.append(
                f"{kind}: {point(store.place.work_path_of(kind, identity.key)) if point else None}"
            )
            if (holder := store.place.holder(kind, identity.key)) is not None:
                self.wrong.append(f"{kind} is locked by process {holder}")
            if self.rng.uniform() < 0.3:
                break  # and let it end
        return in_process(planned, store, artifacts)


def _silent(*_: object, **__: object) -> None:
    return


def run_campaign(folder: Path, *, kills: int, seed: int) -> Killer:
    """Kill the growth of one dataset, store after store, until there were enough kills."""
    torch.manual_seed(0)
    detector = build_detector(TINY).eval()
    scenes = GrowingScenes(folder / "data", 120, 80, people=4)
    config = write_config(folder / "growth.yaml", scenes.root, TINY, **SETTINGS)
    scenes.write(BEFORE)
    make_stages(config, folder / "before", detector, KINDS)
    scenes.write(AFTER)
    expected = _digests(make_stages(config, folder / "alone", detector, KINDS))
    undisturbed = make_stages(config, _copy(folder, "undisturbed"), detector, KINDS)
    killer = Killer(kills, np.random.default_rng(seed), {kind: undisturbed[kind].seconds for kind in KINDS})
    if _digests(undisturbed) != expected:
        killer.wrong.append("even undisturbed, the digests differ")
    number = 0
    while killer.done.total() < kills and not killer.wrong:
        store = _copy(folder, f"store{number}")
        made = make_stages(config, store, detector, KINDS, killer.make)
        if _digests(made) != expected:
            killer.wrong.append(f"digests differ: {_digests(made)}, not {expected}")
        for kind in KINDS:
            killer.wrong += LocalStore(store).verify(kind, made[kind].artifact.key)
            if not made[kind].taken:
                killer.wrong.append(f"{kind} took nothing over")
        shutil.rmtree(store)
        number += 1
    return killer


def _copy(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder / "before", folder / name))


def _digests(made: Mapping[str, Timed]) -> dict[str, str]:
    return {kind: made[kind].artifact.content_digest for kind in KINDS}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="growth-kills-") as folder:
        killer = run_campaign(Path(folder), kills=chosen.kills, seed=chosen.seed)
    for point, count in sorted(Counter(killer.points).items()):
        print(f"{count:3d} x killed at {point}")
    print(f"{killer.done.total()} kills: {dict(killer.done)}; seed {chosen.seed}")
    for each in killer.wrong:
        print(f"WRONG: {each}")
    return 1 if killer.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
