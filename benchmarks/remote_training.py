"""Training from object storage with a cache of shards, against the local disk, which takes turns with it.

Features are random: the time of a step does not depend on them. Requests go to a server on this machine that
waits before each answer, so their bandwidth is that of this machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median

import numpy as np
import torch
import typer

from benchmarks.options import VAR, Device, Folder, Rounds, temporary_folder
from benchmarks.range_server import serve
from benchmarks.reid import ReidBenchmark, Steps, in_turn, write_random_features
from benchmarks.timing import Measurement, medians_in_turn, report, seconds_of
from flows.cli.json_file import Json
from personsearch_core.models.compute import quickest_compute
from personsearch_core.recipes import DetectorModel, RoiRecipe
from personsearch_core.training.row_batches import RowsReadAhead
from storage.digests import digest_file
from storage.feature_store import FeatureReader, ShardCache, features_bytes, open_features
from storage.folders import files_under
from storage.manifest import FileEntry
from storage.space import require_free_space

REQUEST_SECONDS = 0.02
MODEL = DetectorModel(backbone="resnet18", initial_weights=None, norm="batch")
ROI = RoiRecipe(variant="j3", roi_scale=0.5)
"""The demo's: small enough that a step on a CPU does not hide how long rows take."""


def measure_remote(folder: Path, size: ReidBenchmark) -> Iterator[Measurement]:
    """Yield all figures; the empty `folder` holds the store and copies of its shards."""
    shape = ROI.row_shape(size.model.backbone)
    require_free_space(folder, 3 * features_bytes(size.rows, shape), what="the benchmark")
    path = folder / "store"
    write_random_features(path, size.rows, shape)
    files = {
        file.relative_to(path).as_posix(): FileEntry(size=file.stat().st_size, sha256=digest_file(file))
        for file in files_under(path)
    }
    with ExitStack() as opened:
        url = f"{opened.enter_context(serve(folder, REQUEST_SECONDS))}/store"
        disk = opened.enter_context(open_features(path, "disk"))
        whole = ShardCache(folder / "whole", 2 * features_bytes(size.rows, shape), files)
        half = ShardCache(folder / "half", features_bytes(size.rows, shape) // 2, files)
        remote = opened.enter_context(open_features(url, shard_cache=whole))
        bounded = opened.enter_context(open_features(url, shard_cache=half))
        yield from _reading(size, disk, remote, bounded)
        yield from _training(size, disk, remote)
        kept = sum(file.stat().st_size for file in files_under(half.folder))
        yield Measurement(
            "cache of half the size", "bytes kept", 0, 1, kept / half.limit, "x limit", at_most=1
        )


def _reading(
    size: ReidBenchmark, disk: FeatureReader, remote: FeatureReader, bounded: FeatureReader
) -> Iterator[Measurement]:
    """Epochs without a training step: nothing hides how long rows take."""
    epochs = {"disk": disk, "remote": remote, "bounded": bounded}
    calls = {name: _Epochs(size, reader) for name, reader in epochs.items()}
    batches = math.ceil(size.rows / size.batch)
    for name in ("remote", "bounded"):
        first = seconds_of(calls[name])
        yield Measurement("reading", f"{name}, first epoch", first, 1, batches / first, "batches/s")
    time.sleep(1)  # the last shards of the first epoch arrive
    calls["disk"]()
    seconds = medians_in_turn(calls, size.rounds)
    yield Measurement(
        "reading", "local disk", seconds["disk"], size.rounds, batches / seconds["disk"], "batches/s"
    )
    for name, minimum in (("remote", 0.8), ("bounded", None)):
        ratio = seconds["disk"] / seconds[name]
        what = "later epochs" if name == "remote" else "later epochs, half of the shards kept"
        yield Measurement("reading", what, seconds[name], size.rounds, ratio, "x disk", at_least=minimum)


def _training(size: ReidBenchmark, disk: FeatureReader, remote: FeatureReader) -> Iterator[Measurement]:
    """Steps of a branch, after the first epoch."""
    with ExitStack() as opened:
        steps = {
            name: opened.enter_context(
                closing(Steps(size, reader, "j3", quickest_compute(size.device), memory=False))
            )
            for name, reader in (("disk", disk), ("remote", remote))
        }
        rounds = max(5, size.rounds)
        turns = in_turn(steps, rounds)
    seconds = {name: median(turn.seconds for turn in of_one) for name, of_one in turns.items()}
    ratio = seconds["disk"] / seconds["remote"]
    group = f"j3 step of {size.batch}"
    yield Measurement(group, "local disk", seconds["disk"], rounds, 1.0, "x disk")
    yield Measurement(group, "object storage", seconds["remote"], rounds, ratio, "x disk", at_least=0.8)


class _Epochs:
    """Every row once per call, in random batches, read ahead as training reads them."""

    def __init__(self, size: ReidBenchmark, reader: FeatureReader) -> None:
        self._size = size
        self._batches = RowsReadAhead(reader, size.batch, torch.device("cpu"))
        self._rng = np.random.default_rng(1)

    def __call__(self) -> None:
        order = self._rng.permutation(self._size.rows)
        parts = [order[start : start + self._size.batch] for start in range(0, len(order), self._size.batch)]
        for _ in self._batches(parts):
            pass


def remote(
    rows: int = typer.Option(8192, min=512, help="Number of rows in the store."),
    batch: int = typer.Option(128, min=8, help="Rows per batch, a multiple of four."),
    rounds: Rounds = 5,
    device: Device = "auto",
    folder: Folder = VAR,
    json_file: Json = None,
) -> None:
    """Measure training from object storage through a cache of shards, against the local disk.

    Each request is answered after 20 ms.

    Example: personsearch benchmark remote --rows 4096
    """
    size = ReidBenchmark.chosen(rows, batch, rounds, device, MODEL)
    with temporary_folder("remote", folder) as temporary:
        report(measure_remote(temporary, size), size.settings, json_file)
