"""ROI align on a CPU: each bin is a weighted sum of cells; all bins are summed at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ROIS_AT_ONCE = 256
"""Cells and weights of a ROI take up to an eighth of its result's memory at J2's default size."""


def bilinear_roi_align(maps: Tensor, rois: Tensor, size: tuple[int, int], samples: int) -> Tensor:
    """ROIAlign (He et al. 2017) as torchvision's `roi_align(aligned=True)` defines it, to rounding.

    maps: (B, C, h, w) float32. rois: (n, 5) float32, index of the map and x1, y1, x2, y2 in cells. samples:
    points per bin and axis, at least one. Returns (n, C, H, W) float32 in channels-last memory.

    torchvision's CPU kernel reads one cell at a time, in one thread. Here a cell is a row of C numbers, and a
    bin the sum of 4 `samples`^2 rows with bilinear weights.
    """
    cells = maps.permute(0, 2, 3, 1).contiguous()
    parts = [_pool(cells, part, size, samples) for part in torch.split(rois, ROIS_AT_ONCE)]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).permute(0, 3, 1, 2)


def _pool(maps: Tensor, rois: Tensor, size: tuple[int, int], samples: int) -> Tensor:
    """Maps (B, h, w, C) -> (n, H, W, C)."""
    (_, map_height, map_width, channels), (height, width) = maps.shape, size
    number, x1, y1, x2, y2 = (column[:, None] for column in rois.unbind(1))
    down = _taps(y1, y2, height, samples, map_height)
    across = _taps(x1, x2, width, samples, map_width)
    row = (number.to(torch.int32) * map_height)[..., None] + down.cells
    cells = (row * map_width)[:, :, None, :, None] + across.cells[:, None, :, None, :]
    weights = down.weights[:, :, None, :, None] * across.weights[:, None, :, None, :]
    per_bin = 4 * samples**2
    pooled = F.embedding_bag(
        cells.reshape(-1, per_bin),
        maps.view(-1, channels),
        per_sample_weights=weights.reshape(-1, per_bin),
        mode="sum",
    )
    return pooled.view(len(rois), height, width, channels)


class _Taps(NamedTuple):
    """Along one axis, the cells of each bin and their weights: (n, bins, 2 samples) each."""

    cells: Tensor
    weights: Tensor


def _taps(start: Tensor, stop: Tensor, bins: int, samples: int, cells: int) -> _Taps:
    """The two cells around each sampling point. Points more than a cell outside the map count as zero."""
    start, stop = start - 0.5, stop - 0.5  # 0 is the first cell's centre
    size = (stop - start) / bins
    # In torchvision's order, so that rounding does not move a point across the map's border.
    first = start + torch.arange(bins, dtype=start.dtype) * size
    within = (torch.arange(samples, dtype=start.dtype) + 0.5) * size[..., None] / samples
    points = (first[..., None] + within).flatten(1)
    inside = (points >= -1) & (points <= cells)
    points = points.clamp(0, cells - 1)
    low = points.to(torch.int32)
    beyond = points - low
    weights = torch.stack([1 - beyond, beyond], dim=-1) * (inside / samples)[..., None]
    both = torch.stack([low, (low + 1).clamp(max=cells - 1)], dim=-1)
    shape = (len(start), bins, 2 * samples)
    return _Taps(both.view(shape), weights.view(shape))
