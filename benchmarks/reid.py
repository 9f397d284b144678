"""A re-ID training step: from the store, from memory, as a plain loop, and with recomputed features.

Features are random and images synthetic: the time of a step does not depend on their content.

Steps from files are timed in turns of consecutive ones, whose reading starts afresh: rows that were read
during another contender's steps would cost nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
import typer
from torch import Tensor, nn

from benchmarks.drawing import draw_scenes
from benchmarks.options import VAR, Device, Folder, Rounds, temporary_folder
from benchmarks.timing import Measurement, medians_in_turn, report, seconds_of
from flows.cli.json_file import Json
from flows.config.devices import torch_device
from personsearch_core.identities import ReidLabels
from personsearch_core.losses import batch_hard_triplet_loss
from personsearch_core.models.branch import build_branch
from personsearch_core.models.compute import quickest_compute
from personsearch_core.models.detector import build_detector
from personsearch_core.pooling.extraction import extract_shard, feature_rows
from personsearch_core.recipes import (
    BranchModel,
    Compute,
    DetectionLoss,
    DetectorModel,
    FeaturesRecipe,
    Objective,
    Phase,
    ReidRecipe,
    RoiRecipe,
    Variant,
)
from personsearch_core.sampling import PKSampler
from personsearch_core.speed import synchronise
from personsearch_core.training.reid import ReidTraining
from personsearch_core.training.row_batches import RowBatches, RowReader, open_batches
from storage.feature_store import FeatureReader, create_features, open_features

SHOTS = 4
BOXES = 8
"""Rows per identity."""
TURN = {"cpu": 4, "cuda": 40}
"""Consecutive steps that are timed together; a GPU's take milliseconds."""
WARM_UP = {"cpu": 1, "cuda": 3}
"""Steps that are not timed: a GPU's first ones compile, and record a CUDA graph."""
FILES_BOUND = {"cpu": 1.10, "cuda": 1.05}
RECOMPUTED_BOUND: dict[Variant, float] = {"j3": 4.0, "j4": 12.0}
MODEL = DetectorModel(initial_weights=None, norm="batch")
BRANCH = BranchModel(initial_weights="random")


@dataclass(frozen=True)
class ReidBenchmark:
    """The size of the measured step, and the number of rounds."""

    rows: int = 1024
    batch: int = 128
    rounds: int = 5
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    model: DetectorModel = MODEL
    """Provides the blocks of the branch; its input size is that of the images."""

    @classmethod
    def chosen(
        cls, rows: int, batch: int, rounds: int, device: str, model: DetectorModel = MODEL
    ) -> ReidBenchmark:
        """As options give it. Raises BadParameter for a batch that does not fit."""
        if batch % 4 or 2 * batch > rows:
            raise typer.BadParameter(
                f"{batch} must be a multiple of four, and at most half of the {rows} rows"
            )
        return cls(rows, batch, rounds, torch_device(device), model)

    @property
    def settings(self) -> dict[str, int | str]:
        """What the figures were measured with."""
        return {"rows": self.rows, "batch": self.batch, "rounds": self.rounds, "device": str(self.device)}


def measure_reid(folder: Path, size: ReidBenchmark) -> Iterator[Measurement]:
    """Yield all figures; `folder` holds a store and images of some hundred MiB."""
    yield from _loaders(folder, size)
    yield from _settings(folder, size)
    for variant in RECOMPUTED_BOUND:
        yield from _recomputed(folder, size, variant)


def _loaders(folder: Path, size: ReidBenchmark) -> Iterator[Measurement]:
    """The same step on rows from the disk tier and from memory, and its waiting time for rows."""
    with ExitStack() as opened:
        reader = opened.enter_context(_store(folder, size, "j3"))
        disk = opened.enter_context(
            closing(Steps(size, reader, "j3", quickest_compute(size.device), memory=False))
        )
        memory = opened.enter_context(
            closing(Steps(size, reader, "j3", quickest_compute(size.device), memory=True))
        )
        turns = in_turn({"disk": disk, "memory": memory}, size.rounds)
        # A host that runs ahead of a GPU waits for it, not for rows: it must not run ahead here.
        waits = in_turn({"disk": disk}, size.rounds, ahead=False) if size.device.type == "cuda" else turns
    seconds = {name: median(turn.seconds for turn in of_one) for name, of_one in turns.items()}
    waiting = median(turn.waiting for turn in waits["disk"])
    share = median(turn.waiting / turn.seconds for turn in waits["disk"])
    group, rounds = f"j3 step of {size.batch}", size.rounds
    yield Measurement(group, "rows in memory", seconds["memory"], rounds, 1.0, "x memory")
    ratio, bound = seconds["disk"] / seconds["memory"], FILES_BOUND[size.device.type]
    yield Measurement(group, "rows from the store", seconds["disk"], rounds, ratio, "x memory", at_most=bound)
    yield Measurement(group, "waiting for rows", waiting, rounds, 100 * share, "% of it", at_most=2.0)


def _settings(folder: Path, size: ReidBenchmark) -> Iterator[Measurement]:
    """A plain eager fp32 loop against the best settings; both keep their rows in device memory."""
    with ExitStack() as opened:
        reader = opened.enter_context(_store(folder, size, "j3"))
        best = opened.enter_context(
            closing(Steps(size, reader, "j3", quickest_compute(size.device), memory=True))
        )
        plain = _plain_loop(size, reader)
        for _ in range(WARM_UP[size.device.type]):
            best()
            plain()
        seconds = medians_in_turn({"plain": plain, "best": best}, size.rounds)
        group = f"j3 step of {size.batch}"
        yield Measurement(group, "plain eager fp32 loop", seconds["plain"], size.rounds, 1.0, "x plain")
        faster = seconds["plain"] / seconds["best"]
        yield Measurement(
            group, "best settings", seconds["best"], size.rounds, faster, "x faster", at_least=1.5
        )


def _recomputed(folder: Path, size: ReidBenchmark, variant: Variant) -> Iterator[Measurement]:
    """A cached step against one that recomputes its features, one box per image, fp32."""
    recipe = FeaturesRecipe(roi=RoiRecipe(variant=variant))
    width, height = size.model.image_width, size.model.image_height
    scenes = draw_scenes(folder / "images", size.batch, width=width, height=height, people=1)
    detector = build_detector(size.model, DetectionLoss()).to(size.device).eval()
    plan = feature_rows(recipe, scenes, detector)
    with ExitStack() as opened:
        reader = opened.enter_context(_store(folder, size, variant))
        cached = opened.enter_context(closing(Steps(size, reader, variant, Compute(), memory=False)))
        uncached = opened.enter_context(closing(Steps(size, reader, variant, Compute(), memory=True)))

        def recomputed() -> None:
            extract_shard(detector, recipe, plan, 0)
            uncached()

        for steps in (cached, uncached):
            steps.turn(steps.warm_up)
        rounds = min(3, size.rounds)
        turns, times = [], []
        for _ in range(rounds):
            turns.append(cached.turn(cached.per_turn).seconds)
            times.append(seconds_of(recomputed))
    recomputed_seconds, cached_seconds = median(times), median(turns)
    group = f"{variant} step of {size.batch}, {width}x{height} images"
    yield Measurement(group, "features recomputed", recomputed_seconds, rounds, 1.0, "x recomputed")
    faster = recomputed_seconds / cached_seconds
    yield Measurement(
        group,
        "from the store",
        cached_seconds,
        rounds,
        faster,
        "x faster",
        at_least=RECOMPUTED_BOUND[variant],
    )


@dataclass(frozen=True)
class Turn:
    """Seconds per step of one turn, and those that the host waited for rows."""

    seconds: float
    waiting: float


class Steps:
    """Runs training steps in turns of consecutive ones; each turn starts its reading afresh."""

    def __init__(
        self, size: ReidBenchmark, reader: RowReader, variant: Variant, compute: Compute, *, memory: bool
    ) -> None:
        recipe = ReidRecipe(
            branch=BRANCH,
            phases=(Phase(objectives=(Objective(kind="batch_hard_triplet"),), epochs=1_000_000),),
            identities_per_batch=size.batch // SHOTS,
            shots=SHOTS,
            compute=compute,
            cuda_graphs=compute.compile,
        )
        labels = _labels(reader.shape[0])
        sampler = PKSampler(labels, np.arange(len(labels)), size.batch // SHOTS, SHOTS)
        budget = 2**40 if memory else 0
        batches = open_batches(reader, size.batch, size.device, memory_budget=budget)
        self._length = 1
        self._started = self._waited = 0.0
        self.per_turn, self.warm_up = TURN[size.device.type], WARM_UP[size.device.type]
        branch = build_branch(variant, size.model, BRANCH)
        self._training = ReidTraining(
            recipe, branch, self._timed(batches), sampler, labels, np.empty(0, np.int64), size.device
        )
        self._device = size.device
        self._step = 0

    def __call__(self) -> None:
        self.turn(1)

    def turn(self, steps: int, *, ahead: bool = True) -> Turn:
        """That many steps, timed from when their first rows are there until the device has done them.

        ahead: the host may run ahead of the device; otherwise it waits for it after every step.
        """
        self._length = steps
        for _ in range(steps):
            self._training.step(self._step)
            self._step += 1
            if not ahead:
                synchronise(self._device)
        synchronise(self._device)
        return Turn((time.perf_counter() - self._started) / steps, self._waited / steps)

    def close(self) -> None:
        self._training.close()

    def _timed(self, batches: RowBatches) -> RowBatches:
        """The rows turn by turn: nothing is read before a turn asks, nor for the next; see `turn`."""

        def call(indices: Iterable[np.ndarray]) -> Iterator[Tensor]:
            numbers = iter(indices)
            while turn := list(islice(numbers, self._length)):
                rows = batches(turn)
                first = next(rows)
                self._started, self._waited = time.perf_counter(), 0.0
                yield first
                for _ in turn[1:]:
                    asked = time.perf_counter()
                    batch = next(rows)
                    self._waited += time.perf_counter() - asked
                    yield batch

        return call


def in_turn(contenders: Mapping[str, Steps], rounds: int, *, ahead: bool = True) -> dict[str, list[Turn]]:
    """The turns of each, one per round, after steps that are not timed; see `Steps.turn`."""
    for steps in contenders.values():
        steps.turn(steps.warm_up)
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, steps in contenders.items():
            turns[name].append(steps.turn(steps.per_turn, ahead=ahead))
    return turns


def _plain_loop(size: ReidBenchmark, reader: RowReader) -> Callable[[], None]:
    """The obvious first version: rows in memory, fp32, default Adam."""
    branch: nn.Module = build_branch("j3", size.model, BRANCH).to(size.device).train()
    optimiser = torch.optim.Adam(branch.parameters(), lr=1e-4)
    rows = torch.from_numpy(reader.rows(np.arange(reader.shape[0]))).to(size.device)
    labels = torch.arange(size.batch, device=size.device) // SHOTS
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        batch = torch.randperm(len(rows), generator=generator)[: size.batch].to(size.device)
        loss = batch_hard_triplet_loss(branch(rows[batch].float()), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        synchronise(size.device)

    return step


def _store(folder: Path, size: ReidBenchmark, variant: Variant) -> FeatureReader:
    """A store of random features in a variant's shape, written once and opened from disk."""
    path = folder / f"features-{variant}"
    shape = RoiRecipe(variant=variant).row_shape(size.model.backbone)
    if not path.exists():
        write_random_features(path, size.rows, shape)
    return open_features(path, tier="disk")


def write_random_features(path: Path, rows: int, shape: Sequence[int]) -> None:
    """A store of random float16 rows."""
    generator = np.random.default_rng(0)
    with create_features(path, rows, shape) as writer:
        for start in range(0, rows, 256):
            block = generator.random((min(256, rows - start), *shape), dtype=np.float32)
            writer.write(start, block.astype(np.float16))


def _labels(rows: int) -> ReidLabels:
    return ReidLabels.from_columns(
        [f"{row // BOXES:06d}" for row in range(rows)], [f"{row:06d}" for row in range(rows)]
    )


def reid(
    rows: int = typer.Option(1024, min=256, help="Number of rows in the store."),
    batch: int = typer.Option(128, min=8, help="Rows per batch, a multiple of four."),
    rounds: Rounds = 5,
    device: Device = "auto",
    folder: Folder = VAR,
    json_file: Json = None,
) -> None:
    """Measure a re-ID step from the store against memory, a plain loop and recomputed features.

    Example: personsearch benchmark reid --rounds 3
    """
    size = ReidBenchmark.chosen(rows, batch, rounds, device)
    with temporary_folder("reid", folder) as temporary:
        report(measure_reid(temporary, size), size.settings, json_file)
