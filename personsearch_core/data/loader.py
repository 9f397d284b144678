"""Training batches as a function of the step, prefetched by threads."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from personsearch_core.data.augmentation import Colours, training_sample
from personsearch_core.data.prefetch import decode_threads, prefetch
from personsearch_core.data.sampling import TrainingStream
from personsearch_core.models.targets import PaddedTargets, Targets, pad_targets
from personsearch_core.recipes import DetectorRecipe

BATCHES_AHEAD = 3
CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainingBatch:
    """images: uint8 (B, 3, H, W). entries: the training entry that each image came from.

    scenes: the targets by image, which stay on the host, where a joint training cuts its ROIs.
    colours: changes that the images have yet to undergo, on the training's device.
    """

    images: Tensor
    targets: PaddedTargets
    entries: Tensor
    scenes: tuple[Targets, ...]
    colours: tuple[Colours, ...]

    def to(self, device: torch.device) -> TrainingBatch:
        images = self.images.to(device, non_blocking=True)
        for image, colours in zip(images, self.colours, strict=True):
            if colours != Colours():
                image.copy_(colours.of(image))
        return replace(
            self,
            images=images,
            targets=self.targets.to(device),
            entries=self.entries.to(device, non_blocking=True),
            colours=(Colours(),) * len(self.colours),
        )


@dataclass
class Rate:
    """How many images per second the loader's threads bring while all of them are at work."""

    threads: int = 0
    images: int = 0
    seconds: float = 0.0
    """Of all threads together."""

    def add(self, seconds: Sequence[float]) -> None:
        """Note how long each of some images took."""
        self.images, self.seconds = self.images + len(seconds), self.seconds + sum(seconds)

    @property
    def per_second(self) -> float:
        return self.threads * self.images / self.seconds if self.seconds else math.nan


def batch_numbers(recipe: DetectorRecipe, batch: int) -> range:
    """Numbers of a batch's images in the training stream."""
    size = recipe.training.batch_size
    return range(batch * size, (batch + 1) * size)


def training_batches(
    stream: TrainingStream,
    recipe: DetectorRecipe,
    first: int,
    last: int,
    part: slice = slice(None),
    device: torch.device = CPU,
    rate: Rate | None = None,
) -> Generator[TrainingBatch, None, None]:
    """Batches first, ..., last - 1, decoded ahead by threads that take one image each.

    An optimiser step takes `accumulate` batches. part: what this process takes of each batch. device: where
    they will be trained on; `TrainingBatch.to` brings them there. A GPU also changes colours, and decodes
    where the model says so. rate: counts what the threads do.
    """
    begun: deque[Tensor] = deque()
    size, threads = len(batch_numbers(recipe, first)[part]), decode_threads()
    rate = rate or Rate()
    rate.threads = threads

    def samples() -> Iterator[tuple[Tensor, int]]:
        for batch in range(first, last):
            begun.append(_canvases(recipe, size, device))
            yield from zip(begun[-1], batch_numbers(recipe, batch)[part], strict=True)

    def load(sample: tuple[Tensor, int]) -> tuple[Loaded, float]:
        started = time.perf_counter()
        loaded = _load(stream, recipe, *sample, recolour=device.type != "cuda")
        return loaded, time.perf_counter() - started

    ahead = max(BATCHES_AHEAD * size, 2 * threads)
    with closing(prefetch(load, samples(), threads=threads, ahead=ahead)) as loaded:
        for _ in range(first, last):
            parts, seconds = zip(*islice(loaded, size), strict=True)
            rate.add(seconds)
            yield _assemble(begun.popleft(), parts, device)


def _canvases(recipe: DetectorRecipe, count: int, device: torch.device) -> Tensor:
    """Where a batch's images are decoded to: on the GPU, or in memory that a GPU copies from."""
    shape = (count, 3, recipe.model.image_height, recipe.model.image_width)
    if recipe.model.decode == "nvjpeg":
        return torch.empty(shape, dtype=torch.uint8, device=device)
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")


Loaded = tuple[Targets, int, Colours]
"""Of an image: its people, its training entry, and the changes of its colours that are left to make."""


def _load(
    stream: TrainingStream, recipe: DetectorRecipe, canvas: Tensor, number: int, *, recolour: bool
) -> Loaded:
    """Fill the canvas with an image of the stream."""
    entry, scene = stream[number]
    rng, people = stream.generator(number), stream.people(entry, scene)
    _, target, colours = training_sample(scene, recipe.model, recipe.augmentation, rng, canvas, people)
    if recolour and colours != Colours():
        canvas.copy_(colours.of(canvas))
        colours = Colours()
    return target, entry, colours


def _assemble(images: Tensor, loaded: Sequence[Loaded], device: torch.device) -> TrainingBatch:
    scenes, entries, colours = zip(*loaded, strict=True)
    pin = device.type == "cuda"
    numbers = torch.tensor(entries)
    return TrainingBatch(
        images, pad_targets(scenes, pin=pin), numbers.pin_memory() if pin else numbers, scenes, colours
    )
