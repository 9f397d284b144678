"""Training batches as a function of the step, prefetched by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from personsearch_core.data.augmentation import training_sample
from personsearch_core.data.prefetch import decode_threads, prefetch
from personsearch_core.data.sampling import TrainingStream
from personsearch_core.models.targets import PaddedTargets, Targets, pad_targets
from personsearch_core.recipes import DetectorRecipe

BATCHES_AHEAD = 3


@dataclass(frozen=True)
class Share:
    """The part of every batch that this process takes, in a data-parallel run of `count` processes."""

    rank: int = 0
    count: int = 1


@dataclass(frozen=True)
class TrainingBatch:
    """images: uint8 (B, 3, H, W). entries: the training entry that each image came from.

    scenes: the targets by image, which stay on the host, where a joint training cuts its ROIs.
    """

    images: Tensor
    targets: PaddedTargets
    entries: Tensor
    scenes: tuple[Targets, ...]

    def to(self, device: torch.device) -> TrainingBatch:
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            targets=self.targets.to(device),
            entries=self.entries.to(device, non_blocking=True),
        )


def batch_numbers(recipe: DetectorRecipe, batch: int) -> range:
    """Numbers of a batch's images in the training stream."""
    size = recipe.training.batch_size
    return range(batch * size, (batch + 1) * size)


def load_batch(
    stream: TrainingStream, recipe: DetectorRecipe, batch: int, share: Share | None = None, pin: bool = False
) -> TrainingBatch:
    """Decode and augment batch number `batch` (an optimiser step takes `accumulate` batches)."""
    numbers = _numbers(recipe, batch, share)
    images = _canvases(recipe, len(numbers), pin)
    loaded = [_load(stream, recipe, *item) for item in zip(images, numbers, strict=True)]
    return _assemble(images, loaded, pin)


def training_batches(
    stream: TrainingStream,
    recipe: DetectorRecipe,
    first: int,
    last: int,
    share: Share | None = None,
    pin: bool = False,
) -> Generator[TrainingBatch, None, None]:
    """Batches first, ..., last - 1, decoded ahead by threads that take one image each."""
    begun: deque[Tensor] = deque()
    size, threads = len(_numbers(recipe, first, share)), decode_threads()

    def samples() -> Iterator[tuple[Tensor, int]]:
        for batch in range(first, last):
            begun.append(_canvases(recipe, size, pin))
            yield from zip(begun[-1], _numbers(recipe, batch, share), strict=True)

    def load(sample: tuple[Tensor, int]) -> tuple[Targets, int]:
        return _load(stream, recipe, *sample)

    ahead = max(BATCHES_AHEAD * size, 2 * threads)
    with closing(prefetch(load, samples(), threads=threads, ahead=ahead)) as loaded:
        for _ in range(first, last):
            parts = list(islice(loaded, size))
            yield _assemble(begun.popleft(), parts, pin)


def _numbers(recipe: DetectorRecipe, batch: int, share: Share | None) -> range:
    share = share or Share()
    return batch_numbers(recipe, batch)[share.rank :: share.count]


def _canvases(recipe: DetectorRecipe, count: int, pin: bool) -> Tensor:
    shape = (count, 3, recipe.model.image_height, recipe.model.image_width)
    return torch.empty(shape, dtype=torch.uint8, pin_memory=pin)


def _load(stream: TrainingStream, recipe: DetectorRecipe, canvas: Tensor, number: int) -> tuple[Targets, int]:
    """Fill the canvas with an image of the stream; returns its people and its training entry."""
    entry, scene = stream[number]
    rng, people = stream.generator(number), stream.people(entry, scene)
    sample, target = training_sample(scene, recipe.model, recipe.augmentation, rng, canvas, people)
    if sample is not canvas:
        canvas.copy_(sample)
    return target, entry


def _assemble(images: Tensor, loaded: Sequence[tuple[Targets, int]], pin: bool) -> TrainingBatch:
    scenes, entries = zip(*loaded, strict=True)
    numbers = torch.tensor(entries)
    return TrainingBatch(
        images, pad_targets(scenes, pin=pin), numbers.pin_memory() if pin else numbers, scenes
    )
