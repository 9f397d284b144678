"""Training batches as a function of the step, prefetched by threads."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from personsearch_core.data.augmentation import Colours, training_sample
from personsearch_core.data.nvjpeg import Encoded, decode_together
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
    encoded: those that are still to be decoded into `images`, by their place there; colours: changes that the
    images have yet to undergo: both on the training's device.
    """

    images: Tensor
    targets: PaddedTargets
    entries: Tensor
    scenes: tuple[Targets, ...]
    encoded: dict[int, Encoded]
    colours: tuple[Colours, ...]

    def to(self, device: torch.device) -> TrainingBatch:
        images = self.images.to(device, non_blocking=True)
        for place, image in zip(
            self.encoded, decode_together(list(self.encoded.values()), device), strict=True
        ):
            images[place].copy_(image)
        for image, colours in zip(images, self.colours, strict=True):
            if colours != Colours():
                image.copy_(colours.of(image))
        return replace(
            self,
            images=images,
            targets=self.targets.to(device),
            entries=self.entries.to(device, non_blocking=True),
            encoded={},
            colours=(Colours(),) * len(self.colours),
        )

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """See `prefetch.OnDevice`."""
        for tensor in (self.images, *self.targets, self.entries):
            tensor.record_stream(stream)


UNTIMED_ARRIVALS = 2
"""The first batches that a device gets also start it, and fill its pools of memory."""


@dataclass
class Rate:
    """How many images per second a loader brings while all of its threads are at work."""

    threads: int = 0
    images: int = 0
    seconds: float = 0.0
    """Of all threads together, for decoding and augmenting."""
    arrivals: int = 0
    """Batches that were brought to the device."""
    arrived: int = 0
    arriving: float = 0.0
    """Seconds in which images were brought to the device, one batch after the other."""

    def add(self, seconds: Sequence[float]) -> None:
        """Note how long each of some images took a thread."""
        self.images, self.seconds = self.images + len(seconds), self.seconds + sum(seconds)

    def add_arrival(self, images: int, seconds: float) -> None:
        """Note how long it took to bring a batch of images to the device; the first ones start it up."""
        self.arrivals += 1
        if self.arrivals > UNTIMED_ARRIVALS:
            self.arrived, self.arriving = self.arrived + images, self.arriving + seconds

    @property
    def per_second(self) -> float:
        """The rate of the threads or of the way to the device, whichever is lower."""
        if not self.seconds:
            return math.nan
        brought = self.arrived / self.arriving if self.arriving else math.inf
        return min(self.threads * self.images / self.seconds, brought)


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
    pin = device.type == "cuda"
    size, threads = len(batch_numbers(recipe, first)[part]), decode_threads()
    rate = rate or Rate()
    rate.threads = threads

    def samples() -> Iterator[tuple[Tensor, int]]:
        for batch in range(first, last):
            begun.append(_canvases(recipe, size, pin=pin))
            yield from zip(begun[-1], batch_numbers(recipe, batch)[part], strict=True)

    def load(sample: tuple[Tensor, int]) -> tuple[LoadedImage, float]:
        started = time.perf_counter()
        loaded = _load(stream, recipe, *sample, recolour=not pin)
        return loaded, time.perf_counter() - started

    ahead = max(BATCHES_AHEAD * size, 2 * threads)
    with closing(prefetch(load, samples(), threads=threads, ahead=ahead)) as loaded:
        for _ in range(first, last):
            parts, seconds = zip(*islice(loaded, size), strict=True)
            rate.add(seconds)
            yield _assemble(begun.popleft(), parts, pin=pin)


def _canvases(recipe: DetectorRecipe, count: int, *, pin: bool = False) -> Tensor:
    """Where a batch's images are decoded to; with `pin`, in memory that a GPU copies from."""
    shape = (count, 3, recipe.model.image_height, recipe.model.image_width)
    return torch.empty(shape, dtype=torch.uint8, pin_memory=pin)


class LoadedImage(NamedTuple):
    """Of an image: its people, its training entry, and what is left to be done."""

    target: Targets
    entry: int
    encoded: Encoded | None
    colours: Colours


def _load(
    stream: TrainingStream, recipe: DetectorRecipe, canvas: Tensor, number: int, *, recolour: bool
) -> LoadedImage:
    """Fill the canvas with an image of the stream, unless a GPU is to decode it."""
    entry, scene = stream[number]
    rng, people = stream.generator(number), stream.people(entry, scene)
    picture, target, colours = training_sample(scene, recipe.model, recipe.augmentation, rng, canvas, people)
    if isinstance(picture, Encoded):
        return LoadedImage(target, entry, picture, colours)
    if recolour and colours != Colours():
        canvas.copy_(colours.of(canvas))
        colours = Colours()
    return LoadedImage(target, entry, None, colours)


def _assemble(images: Tensor, loaded: Sequence[LoadedImage], *, pin: bool = False) -> TrainingBatch:
    scenes, entries, encoded, colours = zip(*loaded, strict=True)
    numbers = torch.tensor(entries)
    return TrainingBatch(
        images,
        pad_targets(scenes, pin=pin),
        numbers.pin_memory() if pin else numbers,
        scenes,
        {place: each for place, each in enumerate(encoded) if each is not None},
        colours,
    )
