"""Training batches as a function of the step, prefetched by threads."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from personsearch_core.data.augmentation import Colours, training_sample
from personsearch_core.data.prefetch import decode_threads, prefetch
from personsearch_core.data.sampling import TrainingStream
from personsearch_core.models.anchors import Targets
from personsearch_core.recipes import DetectorRecipe

BATCHES_AHEAD = 3
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Share:
    """The part of every batch that this process takes, in a data-parallel run of `count` processes."""

    rank: int = 0
    count: int = 1


@dataclass(frozen=True)
class TrainingBatch:
    """images: uint8 (B, 3, H, W). entries: the training entry that each image came from.

    colours: changes that the images have yet to undergo, on the training's device.
    """

    images: Tensor
    targets: tuple[Targets, ...]
    entries: Tensor
    colours: tuple[Colours, ...] = ()

    def to(self, device: torch.device) -> TrainingBatch:
        images = self.images.to(device, non_blocking=True)
        for image, colours in zip(images, self.colours, strict=False):
            if colours != Colours():
                image.copy_(colours.of(image))
        return TrainingBatch(
            images,
            tuple(target.to(device) for target in self.targets),
            self.entries.to(device, non_blocking=True),
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


def load_batch(
    stream: TrainingStream, recipe: DetectorRecipe, batch: int, share: Share | None = None
) -> TrainingBatch:
    """Decode and augment batch number `batch` (an optimiser step takes `accumulate` batches)."""
    numbers = _numbers(recipe, batch, share)
    images = _canvases(recipe, len(numbers), CPU)
    return _assemble(images, [_load(stream, recipe, *item) for item in zip(images, numbers, strict=True)])


def training_batches(
    stream: TrainingStream,
    recipe: DetectorRecipe,
    first: int,
    last: int,
    share: Share | None = None,
    device: torch.device = CPU,
    rate: Rate | None = None,
) -> Generator[TrainingBatch, None, None]:
    """Batches first, ..., last - 1, decoded ahead by threads that take one image each.

    device: where they will be trained on; `TrainingBatch.to` brings them there. A GPU also changes colours,
    and decodes where the model says so. rate: counts what the threads do.
    """
    begun: deque[Tensor] = deque()
    size, threads = len(_numbers(recipe, first, share)), decode_threads()
    rate = rate or Rate()
    rate.threads = threads

    def samples() -> Iterator[tuple[Tensor, int]]:
        for batch in range(first, last):
            begun.append(_canvases(recipe, size, device))
            yield from zip(begun[-1], _numbers(recipe, batch, share), strict=True)

    def load(sample: tuple[Tensor, int]) -> tuple[Loaded, float]:
        started = time.perf_counter()
        loaded = _load(stream, recipe, *sample, recolour=device.type != "cuda")
        return loaded, time.perf_counter() - started

    ahead = max(BATCHES_AHEAD * size, 2 * threads)
    with closing(prefetch(load, samples(), threads=threads, ahead=ahead)) as loaded:
        for _ in range(first, last):
            parts, seconds = zip(*islice(loaded, size), strict=True)
            rate.add(seconds)
            yield _assemble(begun.popleft(), parts)


def _numbers(recipe: DetectorRecipe, batch: int, share: Share | None) -> range:
    share = share or Share()
    return batch_numbers(recipe, batch)[share.rank :: share.count]


def _canvases(recipe: DetectorRecipe, count: int, device: torch.device) -> Tensor:
    """Where a batch's images are decoded to: on the GPU, or in memory that a GPU copies from."""
    shape = (count, 3, recipe.model.image_height, recipe.model.image_width)
    if recipe.model.decode == "nvjpeg":
        return torch.empty(shape, dtype=torch.uint8, device=device)
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")


Loaded = tuple[Targets, int, Colours]
"""Of an image: its people, its training entry, and the changes of its colours that are left to make."""


def _load(
    stream: TrainingStream, recipe: DetectorRecipe, canvas: Tensor, number: int, *, recolour: bool = True
) -> Loaded:
    """Fill the canvas with an image of the stream."""
    entry, scene = stream[number]
    rng, people = stream.generator(number), stream.people(entry, scene)
    _, target, colours = training_sample(scene, recipe.model, recipe.augmentation, rng, canvas, people)
    if recolour and colours != Colours():
        canvas.copy_(colours.of(canvas))
        colours = Colours()
    return target, entry, colours


def _assemble(images: Tensor, loaded: Sequence[Loaded]) -> TrainingBatch:
    targets, entries, colours = zip(*loaded, strict=True)
    return TrainingBatch(images, targets, torch.tensor(entries), colours)
