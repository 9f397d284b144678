"""How a model computes: memory format and compilation."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork

from personsearch_core.recipes import Compute

Module = TypeVar("Module", bound=nn.Module)


def prepare(module: Module, compute: Compute) -> Module:
    """Set memory format and compilation in place, and return the module.

    Blocks are compiled one by one, so that every way through them (whole, or left at a shared block) is
    compiled, and the same code serves them all.
    """
    if compute.channels_last:
        module.to(memory_format=torch.channels_last)
    if compute.compile:
        for part in module.modules():
            if isinstance(part, FeaturePyramidNetwork | RetinaNetHead) or _is_resnet_layer(part):
                part.compile()
    return module


def arrange(images: Tensor, compute: Compute) -> Tensor:
    """A batch (B, C, H, W) in the memory format that the model computes in."""
    return images.contiguous(memory_format=torch.channels_last) if compute.channels_last else images


def model_device(module: nn.Module) -> torch.device:
    """Where a model's parameters lie."""
    return next(module.parameters()).device


def _is_resnet_layer(module: nn.Module) -> bool:
    """layer1..layer4 of a ResNet: the sequences of residual blocks."""
    return isinstance(module, nn.Sequential) and len(module) > 0 and hasattr(module[0], "downsample")
