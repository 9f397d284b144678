"""A small store in memory: rows of people who have a look of their own."""

from __future__ import annotations

import numpy as np
from torch import nn

from personsearch_core.identities import ReidLabels


class ArrayRows:
    """A row reader over an array."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def buffer(self, n_rows: int) -> np.ndarray:
        return np.empty((n_rows, *self.shape[1:]), self.dtype)

    def rows(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return np.take(self.array, indices, axis=0, out=out)


def people(
    identities: int = 12,
    boxes: int = 6,
    unlabelled: int = 10,
    channels: int = 4,
    noise: float = 2.0,
    seed: int = 0,
) -> tuple[ArrayRows, ReidLabels]:
    """Rows (n, channels, 4, 2): a person's look on half of the channels, strong noise on the others."""
    generator = np.random.default_rng(seed)
    person: list[int | None] = [*np.repeat(np.arange(identities), boxes).tolist(), *[None] * unlabelled]
    looks = generator.normal(size=(identities + unlabelled, channels, 4, 2))
    shown = looks[[p if p is not None else identities + i for i, p in enumerate(person, -identities * boxes)]]
    nuisance = np.zeros((channels, 1, 1))
    nuisance[channels // 2 :] = noise
    rows = shown * (nuisance == 0) + generator.normal(size=shown.shape) * (nuisance + 0.5)
    labels = ReidLabels.from_columns(
        [None if p is None else f"person {p}" for p in person], [f"image {i}" for i in range(len(person))]
    )
    return ArrayRows(rows.astype(np.float16)), labels


def small_branch(channels: int = 4, dim: int = 8, seed: int = 0) -> nn.Module:
    """Convolution, batch norm, and an embedding of 8 dimensions."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 16, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 8, dim),
        )
