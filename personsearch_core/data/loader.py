"""Training batches as a function of the step, prefetched by threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from personsearch_core.data.augmentation import training_sample
from personsearch_core.data.prefetch import decode_threads, prefetch
from personsearch_core.data.sampling import TrainingStream
from personsearch_core.models.anchors import Targets
from personsearch_core.recipes import DetectorRecipe

BATCHES_AHEAD = 3


@dataclass(frozen=True)
class Share:
    """Which part of every batch this process takes, in a data-parallel run of `count` processes."""

    rank: int = 0
    count: int = 1


@dataclass(frozen=True)
class TrainingBatch:
    """images: uint8 (B, 3, H, W). entries: which training entry each image came from."""

    images: Tensor
    targets: tuple[Targets, ...]
    entries: Tensor

    def to(self, device: torch.device) -> TrainingBatch:
        return TrainingBatch(
            self.images.to(device, non_blocking=True),
            tuple(target.to(device) for target in self.targets),
            self.entries.to(device, non_blocking=True),
        )


def batch_numbers(recipe: DetectorRecipe, batch: int) -> range:
    """Numbers in the training stream of the images of a batch."""
    size = recipe.training.batch_size
    return range(batch * size, (batch + 1) * size)


def load_batch(
    stream: TrainingStream, recipe: DetectorRecipe, batch: int, share: Share | None = None, pin: bool = False
) -> TrainingBatch:
    """Decode and augment batch number `batch` (an optimiser's step takes `accumulate` of them)."""
    share = share or Share()
    numbers = batch_numbers(recipe, batch)[share.rank :: share.count]
    shape = (len(numbers), 3, recipe.model.image_height, recipe.model.image_width)
    images = torch.empty(shape, dtype=torch.uint8, pin_memory=pin)
    targets, entries = [], []
    for canvas, number in zip(images, numbers, strict=True):
        entry, scene = stream[number]
        sample, target = training_sample(
            scene, recipe.model, recipe.augmentation, stream.generator(number), out=canvas
        )
        if sample is not canvas:
            canvas.copy_(sample)
        targets.append(target)
        entries.append(entry)
    return TrainingBatch(images, tuple(targets), torch.tensor(entries))


def training_batches(
    stream: TrainingStream,
    recipe: DetectorRecipe,
    first: int,
    last: int,
    share: Share | None = None,
    pin: bool = False,
) -> Iterator[TrainingBatch]:
    """Batches first, ..., last - 1, decoded ahead of their use."""

    def load(batch: int) -> TrainingBatch:
        return load_batch(stream, recipe, batch, share, pin)

    return prefetch(load, range(first, last), threads=decode_threads(), ahead=BATCHES_AHEAD)
