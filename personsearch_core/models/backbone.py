"""ResNet blocks C1..C5 as a backbone that can stop early, and the choice of norm layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.ops import FrozenBatchNorm2d

from personsearch_core.recipes import BATCH_NORM_EPSILON, DetectorModel

BACKBONES: dict[str, Callable[..., resnet.ResNet]] = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
}

NormLayer = Callable[[int], nn.Module]


class FrozenBatchNorm(FrozenBatchNorm2d):  # type: ignore[misc]
    """torchvision's frozen norm, in one pass over the map and at the map's precision.

    torchvision takes two passes with two temporary maps, which cost more than the arithmetic, and widens
    bfloat16 to float32. Only float16 is widened here: the scale of a near-dead channel exceeds its range.
    """

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        columns = (1, -1, 1, 1)
        if x.dtype == torch.float16:
            return torch.addcmul(shift.view(columns), x.float(), scale.view(columns)).to(x.dtype)
        return torch.addcmul(shift.to(x.dtype).view(columns), x, scale.to(x.dtype).view(columns))


def norm_layer(kind: str, epsilon: float = BATCH_NORM_EPSILON) -> NormLayer:
    """`frozen_batch`, `batch` or `group`, as a function of the number of channels."""
    if kind == "frozen_batch":
        return partial(FrozenBatchNorm, eps=epsilon)
    if kind == "group":
        return partial(_group_norm, epsilon=epsilon)
    return partial(nn.BatchNorm2d, eps=epsilon)


def _group_norm(channels: int, epsilon: float) -> nn.GroupNorm:
    """32 groups (Wu & He 2018), or fewer, so that each has at least two channels."""
    return nn.GroupNorm(min(32, channels // 2), channels, eps=epsilon)


def stem_and_layers(backbone: str, norm: NormLayer) -> resnet.ResNet:
    """A ResNet with random weights and no classifier."""
    network = BACKBONES[backbone](weights=None, norm_layer=norm)
    del network.avgpool, network.fc
    return network


class Backbone(nn.Module):
    """C1..C5 of a ResNet: C1 is the stem with its pooling, C2..C5 are layer1..layer4.

    Parameters have torchvision's names (conv1, bn1, layer1 ...), so its weights load unchanged.
    """

    def __init__(self, model: DetectorModel) -> None:
        super().__init__()
        network = stem_and_layers(model.backbone, norm_layer(model.norm, model.backbone_epsilon))
        self.conv1 = network.conv1
        self.bn1 = network.bn1
        self.relu = network.relu
        self.maxpool = network.maxpool
        self.layer1 = network.layer1
        self.layer2 = network.layer2
        self.layer3 = network.layer3
        self.layer4 = network.layer4
        self.frozen = ["conv1", "layer1", "layer2", "layer3", "layer4"][: 5 - model.trainable_layers]
        if self.frozen:
            self.frozen.append("bn1")
        for name in self.frozen:
            self.get_submodule(name).requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        """Frozen blocks stay in evaluation mode, which freezes their statistics too."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def forward(self, x: Tensor, last: int = 5) -> tuple[Tensor, ...]:
        """Normalised images (B, 3, H, W) -> C2..C`last`, at strides 4, 8, 16, 32; later blocks do not run."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps: list[Tensor] = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4)[: last - 1]:
            x = layer(x)
            maps.append(x)
        return tuple(maps)
