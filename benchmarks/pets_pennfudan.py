"""Do boxes of other street scenes help a detector? PETS09-S2L1 with and without PennFudanPed.

Six runs: configs/pets_pennfudan.yaml and docs/examples/pennfudan/with_pennfudan.yaml, three seeds each. Both
see the same number of PETS images; PennFudan's are extra. Detection is resampled over blocks of 10 frames,
search over identities, both over the seeds; intervals are 95 %.

    python -m benchmarks.pets_pennfudan WORK [--seeds 0,1,2] [--json OUT]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer

from benchmarks.options import PROGRAM, Work, numbers, run_script
from data_catalog.snapshot import Snapshot
from data_catalog.views import protocol_view
from flows.cli.json_file import Json, write_json
from flows.plan.views import ViewSpec
from flows.stages.evaluation import PER_QUERY
from flows.stages.test_set import TestSet
from personsearch_core.evaluation.matching import iou
from personsearch_core.evaluation.records import Detections, GroundTruth

PROJECT = Path(__file__).resolve().parents[1]
EXAMPLE = PROJECT / "docs" / "examples" / "pennfudan"
CONFIGS = {
    "PETS": PROJECT / "configs" / "pets_pennfudan.yaml",
    "PETS + PennFudan": EXAMPLE / "with_pennfudan.yaml",
}
BLOCK = 10
"""Consecutive frames that are drawn together: neighbours show the same people in the same places."""
SCORE = 0.3
"""Minimum score of the configs' search; recall counts these detections."""
DRAWS = 2000
CAVEAT = (
    "One scene, one camera, {queries} drawn queries of {people} people, some of whom are in both halves of "
    "the video: compare by AP50 and recall; mAP and rank-1 only show that the whole method runs."
)


def adapter_on_path(package: Path, target: Path) -> dict[str, str]:
    """Install a package of one module with its entry points in a folder, as pip would, and return the
    environment of a process that can import it.
    """
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = target / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    for module in package.glob("*.py"):
        shutil.copy(module, target)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(PROJECT)])}


@dataclass(frozen=True)
class FrameMatches:
    """Detections matched at IoU 0.5 as in COCO, best score first, each person once.

    `frame`, `score`, `is_true` (n,) of the detections, in the order of their scores; `people` (frames,).
    """

    frame: np.ndarray
    score: np.ndarray
    is_true: np.ndarray
    people: np.ndarray

    @classmethod
    def of(cls, detections: Detections, truth: GroundTruth, n_frames: int) -> FrameMatches:
        """From ground truth without ignore regions."""
        assert not truth.ignore.any(), "ignore regions are not supported here"
        order = np.argsort(-detections.scores, kind="stable")
        is_true = np.zeros(len(order), bool)
        for frame in range(n_frames):
            people = truth.boxes[truth.image == frame].astype(np.float64)
            free = np.ones(len(people), bool)
            for place in np.flatnonzero(detections.image[order] == frame) if len(people) else ():
                box = np.broadcast_to(detections.boxes[order[place]].astype(np.float64), people.shape)
                overlap = np.where(free, iou(box, people), 0)
                best = len(people) - 1 - int(overlap[::-1].argmax())
                if overlap[best] >= 0.5:
                    is_true[place], free[best] = True, False
        people = np.bincount(truth.image, minlength=n_frames)
        return cls(detections.image[order], detections.scores[order], is_true, people)

    def ap50(self, times: np.ndarray) -> float:
        """COCO's AP50, each frame counted `times` (frames,)."""
        weight = times[self.frame]
        found, seen = np.cumsum(weight * self.is_true), np.cumsum(weight)
        precision = found / np.maximum(seen, 1)
        recall = found / (self.people @ times)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        place = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
        return float(np.append(best, 0.0)[place].mean())

    def recall(self, times: np.ndarray) -> float:
        """Share of people found by detections with a score of at least SCORE."""
        counted = self.is_true & (self.score >= SCORE)
        return float(times[self.frame[counted]].sum() / (self.people @ times))


@dataclass(frozen=True)
class Run:
    """The measurements of one run: matches by frame, and AP and rank-1 of each query, by identity."""

    frames: FrameMatches
    ap: np.ndarray
    hit: np.ndarray
    person: np.ndarray

    @classmethod
    def of(cls, outcome: dict[str, Any]) -> Run:
        """Read from the output of `run --json`."""
        paths = {stage["stage"]: Path(stage["path"]) for stage in outcome["stages"]}
        test = TestSet(paths["gallery"], paths["ingest:pets"], ViewSpec("pets", "test", "truth"))
        table = pq.read_table(paths["evaluation"] / PER_QUERY)
        table = table.filter(pc.equal(table["setting"], table["setting"][0]))
        queries = protocol_view(Snapshot(paths["ingest:pets"]), "drawn").queries
        assert table["query_id"].to_pylist() == queries["query_id"].to_pylist()
        person = queries["person_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        return cls(
            FrameMatches.of(test.detections, test.truth, len(test.image_ids)),
            table["ap"].to_numpy(),
            table["hit1"].to_numpy().astype(float),
            person,
        )

    def figures(self, frames: np.ndarray, people: np.ndarray) -> np.ndarray:
        """AP50, recall, mAP and rank-1 with the given count of each frame and each person."""
        weight = people[self.person]
        return np.array(
            [
                self.frames.ap50(frames),
                self.frames.recall(frames),
                weight @ self.ap / weight.sum(),
                weight @ self.hit / weight.sum(),
            ]
        )


FIGURES = ("AP50", "recall", "mAP", "rank-1")


@dataclass(frozen=True)
class Summary:
    """Per metric (4,): the mean over seeds, its 95 % interval, and the values of all seeds (seeds, 4)."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: np.ndarray


def summarise(arms: Sequence[Sequence[Run]], rng: np.random.Generator, draws: int = DRAWS) -> list[Summary]:
    """Summarise the runs of each arm, then the gain of each later arm over the first.

    A draw takes blocks of frames, people and seeds with replacement, the same blocks and people for all runs.
    """
    first = arms[0][0]
    n_frames, n_people = len(first.frames.people), int(first.person.max()) + 1
    block = np.arange(n_frames) // BLOCK
    once = np.ones(n_frames, int), np.ones(n_people, int)
    observed = np.array([[run.figures(*once) for run in arm] for arm in arms])
    drawn = np.empty((draws, len(arms), len(FIGURES)))
    for draw in range(draws):
        times = np.bincount(rng.integers(0, block[-1] + 1, block[-1] + 1), minlength=block[-1] + 1)[block]
        people = np.bincount(rng.integers(0, n_people, n_people), minlength=n_people)
        for number, arm in enumerate(arms):
            chosen = np.bincount(rng.integers(0, len(arm), len(arm)), minlength=len(arm))
            parts = [runs * arm[seed].figures(times, people) for seed, runs in enumerate(chosen) if runs]
            drawn[draw, number] = np.sum(parts, axis=0) / len(arm)
    summaries = [_summary(observed[number], drawn[:, number]) for number in range(len(arms))]
    for number in range(1, len(arms)):
        summaries.append(_summary(observed[number] - observed[0], drawn[:, number] - drawn[:, 0]))
    return summaries


def _summary(observed: np.ndarray, drawn: np.ndarray) -> Summary:
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return Summary(observed.mean(axis=0), low, high, observed)


def table(titles: Sequence[str], summaries: Sequence[Summary]) -> str:
    """A Markdown table: means with intervals in percent, then the values of the seeds."""
    lines = [
        f"| detector trained on | {' | '.join(FIGURES)} |",
        "|---|" + "---|" * len(FIGURES),
    ]
    titles = [*titles, *(f"gain of {title}" for title in titles[1:])]
    for title, of in zip(titles, summaries, strict=True):
        cells = [
            f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f}); "
            + ", ".join(f"{100 * value:.1f}" for value in values)
            for mean, low, high, values in zip(of.mean, of.low, of.high, of.seeds.T, strict=True)
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def make(work: Path, seeds: Sequence[int], say: Callable[[str], None] = print) -> dict[str, list[Run]]:
    """All runs; those that are in `work` already are not repeated."""
    store, environment = work / "store", adapter_on_path(EXAMPLE, work / "adapter")
    runs: dict[str, list[Run]] = {}
    for title, config in CONFIGS.items():
        for seed in seeds:
            outcome = work / f"{config.stem}-{seed}.json"
            command = [*PROGRAM, "run", str(config)]
            command += ["--store", str(store), "--json", str(outcome)]
            command += ["--set", f"detector.seed={seed}", "--set", f"reid.seed={seed}"]
            subprocess.run(command, check=True, env=environment)
            found = json.loads(outcome.read_text())
            say(f"{title}, seed {seed}: {found['wall_seconds']:.0f} s")
            runs.setdefault(title, []).append(Run.of(found))
    return runs


def main(
    work: Work,
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0,1,2",
    json_file: Json = None,
) -> None:
    work.mkdir(parents=True, exist_ok=True)
    runs = make(work.absolute(), numbers("--seeds", seeds, at_least=0))
    summaries = summarise(list(runs.values()), np.random.default_rng(0))
    first = next(iter(runs.values()))[0]
    print(table(list(runs), summaries))
    print(CAVEAT.format(queries=len(first.person), people=first.person.max() + 1))
    names = [*runs, *(f"gain of {title}" for title in list(runs)[1:])]
    record = {
        name: {
            figure: [of.mean[i], of.low[i], of.high[i], *of.seeds[:, i]] for i, figure in enumerate(FIGURES)
        }
        for name, of in zip(names, summaries, strict=True)
    }
    write_json(json_file, record)


if __name__ == "__main__":
    run_script(main, __doc__)
