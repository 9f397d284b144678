"""Feature extraction against its floor: decoding and the forward pass of the shared blocks, or the disk.

Whichever is slower, the way from a GPU to this machine's memory included: all else can go on beside it.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import typer

from benchmarks.drawing import draw_scenes
from benchmarks.options import VAR, Device, Folder, Rounds, temporary_folder
from benchmarks.timing import Measurement, medians_in_turn, report
from flows.cli.json_file import Json
from flows.config.devices import torch_device
from personsearch_core.data.network_input import Picture, decoded, place_scene
from personsearch_core.data.prefetch import NetworkInputs, brought, decode_threads, in_batches, prefetch
from personsearch_core.data.scenes import Scene
from personsearch_core.models.compute import autocast, batch_on, prepare
from personsearch_core.models.detector import Detector, build_detector
from personsearch_core.pooling.extraction import SHARD_ROWS, extract_shards, feature_rows
from personsearch_core.recipes import DetectionLoss, DetectorModel, FeaturesRecipe, RoiRecipe, Variant
from personsearch_core.speed import synchronise
from storage.feature_store import create_features
from storage.feature_store.buffers import allocate_buffer
from storage.feature_store.new_files import write_new

PEOPLE = 8
"""Boxes per image; divides the rows of a shard, so that both sides compute every image once."""
MODEL = DetectorModel(initial_weights=None, norm="batch")
BOUND = {"cpu": 1.10, "cuda": 1.30}


@dataclass(frozen=True)
class ExtractionBenchmark:
    """How much to extract, and how often."""

    variants: tuple[Variant, ...] = ("j3", "j4")
    shards: int = 1
    rounds: int = 5
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    model: DetectorModel = MODEL
    images: tuple[int, int] = (1920, 1080)
    """Width and height of the files: PRW's."""


def measure_extraction(folder: Path, size: ExtractionBenchmark) -> Iterator[Measurement]:
    """ResNet-50 at 640x640, images of PRW's size; `folder` holds the images and one store at a time."""
    count, (width, height) = size.shards * SHARD_ROWS // PEOPLE, size.images
    scenes = draw_scenes(folder / "images", count, width=width, height=height, people=PEOPLE)
    detector = build_detector(size.model, DetectionLoss()).to(size.device).eval()
    for variant in size.variants:
        yield from _measure(folder / variant, detector, scenes, variant, size)


def _measure(
    target: Path, detector: Detector, scenes: Sequence[Scene], variant: Variant, size: ExtractionBenchmark
) -> Iterator[Measurement]:
    recipe = FeaturesRecipe(roi=RoiRecipe(variant=variant))
    plan = feature_rows(recipe, scenes, detector)

    def pool() -> None:
        for _ in extract_shards(detector, recipe, plan, range(plan.n_shards)):
            pass

    def pool_and_write() -> None:
        shutil.rmtree(target, ignore_errors=True)
        with create_features(target, len(plan), plan.row_shape) as writer:
            for shard, block in extract_shards(detector, recipe, plan, range(plan.n_shards)):
                writer.write(plan.rows_of(shard).start, block)

    contenders = {
        "computed": lambda: _forward(detector, recipe, scenes, variant, size.device),
        "forward": _forward_alone(detector, recipe, scenes, variant, size.device),
        "disk": _bare_writes(target, plan.n_shards, plan.row_shape, recipe.dtype),
        "pooled": pool,
        "written": pool_and_write,
    }
    if size.device.type == "cuda":
        contenders["copied"] = _bare_copies(plan.n_shards, plan.row_shape, recipe.dtype, size.device)
    for name in ("computed", "forward"):
        contenders[name]()
    seconds = medians_in_turn(contenders, size.rounds)
    shutil.rmtree(target)
    gib = len(plan) * math.prod(plan.row_shape) * np.dtype(recipe.dtype).itemsize / 2**30
    group = f"{variant}, {len(scenes)} images"
    yield from _figures(group, seconds, len(scenes), gib, size.rounds, BOUND[size.device.type])


def _figures(
    group: str, seconds: Mapping[str, float], images: int, gib: float, rounds: int, bound: float
) -> Iterator[Measurement]:
    """The floor is the slowest of what can go on at the same time."""
    floor = max(seconds[name] for name in ("computed", "disk", "copied") if name in seconds)
    names = {
        "forward": ("forward alone, images on the device", "images/s", images),
        "computed": ("decoding and forward", "x floor", None),
        "copied": ("the wire: the same bytes, from the device to pinned memory", "GiB/s", gib),
        "disk": ("the disk: the same bytes, written and flushed", "GiB/s", gib),
        "pooled": ("and pooling, not written", "x floor", None),
        "written": ("features stage, written and flushed", "x floor", None),
    }
    for name, (shown, unit, amount) in names.items():
        if name in seconds:
            value = seconds[name] / floor if amount is None else amount / seconds[name]
            at_most = bound if name == "written" else None
            yield Measurement(group, shown, seconds[name], rounds, value, unit, at_most=at_most)
    ours = seconds["written"]
    yield Measurement(group, "features stage, its rate", ours, rounds, gib / ours, "GiB/s")


def _bare_writes(target: Path, shards: int, row_shape: tuple[int, ...], dtype: str) -> Callable[[], object]:
    """Write files of a shard's size and flush them, with nothing of a store's own."""
    block = allocate_buffer((SHARD_ROWS, *row_shape), dtype)
    block[:] = 1

    def write() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for shard in range(shards):
            write_new(target / str(shard), [block.data], flush=True)

    return write


def _bare_copies(
    shards: int, row_shape: tuple[int, ...], dtype: str, device: torch.device
) -> Callable[[], object]:
    """Copy blocks of a shard's size from a GPU to pinned memory."""
    block = torch.from_numpy(np.ones((SHARD_ROWS, *row_shape), dtype))
    there, here = block.to(device), block.pin_memory()

    def copy() -> None:
        for _ in range(shards):
            here.copy_(there, non_blocking=True)
        synchronise(device)

    return copy


def _forward_alone(
    detector: Detector,
    recipe: FeaturesRecipe,
    scenes: Sequence[Scene],
    variant: Variant,
    device: torch.device,
) -> Callable[[], object]:
    """As many batches as the scenes make, of images that are decoded and on the device already."""
    size = recipe.batch_images
    images = decoded([place_scene(scene, detector.model).pixels for scene in scenes[:size]], device)

    @torch.inference_mode()
    def forward() -> None:
        network = prepare(detector, recipe.compute)
        inputs = batch_on(device, images, recipe.compute, size)
        for _ in range(0, len(scenes), size):
            with autocast(recipe.compute, device):
                network.shared_maps(inputs, variant)
        synchronise(device)

    return forward


@torch.inference_mode()
def _forward(
    detector: Detector,
    recipe: FeaturesRecipe,
    scenes: Sequence[Scene],
    variant: Variant,
    device: torch.device,
) -> None:
    """Bring the extraction's batches to the same blocks in the same way, and discard the maps."""
    network = prepare(detector, recipe.compute)

    def decode(scene: Scene) -> Picture:
        return place_scene(scene, detector.model).pixels

    def bring(batch: Sequence[Picture]) -> NetworkInputs[Sequence[Picture]]:
        return NetworkInputs(batch_on(device, decoded(batch, device), recipe.compute, size), batch)

    size = recipe.batch_images
    pictures = prefetch(decode, scenes, threads=decode_threads(), ahead=4 * size)
    with closing(brought(in_batches(pictures, size), bring, device)) as inputs:
        for given in inputs:
            with autocast(recipe.compute, device):
                network.shared_maps(given.images, variant)
    synchronise(device)


def extraction(
    shards: int = typer.Option(
        1, min=1, help="Number of shards to extract, each of 32 images with 8 people."
    ),
    rounds: Rounds = 5,
    device: Device = "auto",
    folder: Folder = VAR,
    json_file: Json = None,
) -> None:
    """Measure feature extraction against the forward pass of the shared blocks, and against the disk.

    Example: personsearch benchmark extraction --shards 1
    """
    on = torch_device(device)
    size = ExtractionBenchmark(shards=shards, rounds=rounds, device=on)
    with temporary_folder("extraction", folder) as temporary:
        settings = {"shards": shards, "rounds": rounds, "device": str(on)}
        report(measure_extraction(temporary, size), settings, json_file)
