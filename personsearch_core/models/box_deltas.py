"""Boxes as deltas from anchors (Girshick et al. 2014, appendix C), as RetinaNet predicts them.

torchvision's coder computes the same but creates its constants on the device, which makes the host wait.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_LOG_RATIO = math.log(1000 / 16)
"""A box has at most this log of its anchor's size; the value of the reference implementation."""


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (..., 4) in pixels -> deltas (..., 4) from their anchors (..., 4): dx, dy, dw, dh."""
    sizes, centres = _sizes_and_centres(boxes)
    anchor_sizes, anchor_centres = _sizes_and_centres(anchors)
    return torch.cat([(centres - anchor_centres) / anchor_sizes, torch.log(sizes / anchor_sizes)], dim=-1)


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """The inverse: deltas (..., 4) from anchors (..., 4) -> boxes (..., 4) in pixels."""
    sizes, centres = _sizes_and_centres(anchors)
    centres = deltas[..., :2] * sizes + centres
    halves = 0.5 * (torch.exp(deltas[..., 2:].clamp(max=LARGEST_LOG_RATIO)) * sizes)
    return torch.cat([centres - halves, centres + halves], dim=-1)


def _sizes_and_centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sizes = boxes[..., 2:] - boxes[..., :2]
    return sizes, boxes[..., :2] + 0.5 * sizes
