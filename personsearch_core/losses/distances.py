"""Euclidean distances between embeddings, exact even if two of them coincide."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(values: Tensor) -> Tensor:
    """Narrower types become float32: distances of half-precision values cancel badly."""
    return values if values.dtype == torch.float64 else values.float()


def pairwise_distances(embeddings: Tensor, *, squared: bool = False) -> Tensor:
    """Distances (B, B) between all of the embeddings (B, D).

    Differences are taken before squaring: in float32, `|a|^2 + |b|^2 - 2ab` loses the distances of near
    duplicates. The gradient at distance 0 is 0. The result is float32, or float64 for float64 input.
    """
    rows = full_precision(embeddings)
    with torch.autocast(rows.device.type, enabled=False):
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.square() if squared else distances
