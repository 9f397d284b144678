"""RetinaNet (Lin et al. 2017) for one class, built of torchvision's parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import Conv2dNormActivation
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from personsearch_core.boxes import Placement, place_image
from personsearch_core.models.anchors import AnchorGrid
from personsearch_core.models.backbone import Backbone
from personsearch_core.models.candidates import (
    Candidates,
    ImageDetections,
    best_candidates,
    picture_boxes,
    suppress,
)
from personsearch_core.models.detection_loss import detection_losses
from personsearch_core.models.targets import PaddedTargets
from personsearch_core.recipes import SHARED_BLOCKS, DetectionLoss, DetectorModel, block_channels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """Images (B, 3, H, W), uint8 or float in 0..1, -> float with ImageNet's mean 0 and deviation 1."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            return (images.to(self.mean.dtype) - self.mean * 255) / (self.std * 255)
        return (images - self.mean) / self.std


class BackboneWithFPN(nn.Module):
    """Backbone and feature pyramid P3..P7, under torchvision's names `body` and `fpn`."""

    def __init__(self, model: DetectorModel) -> None:
        super().__init__()
        self.body = Backbone(model)
        channels = model.fpn_channels
        self.fpn = FeaturePyramidNetwork(
            [block_channels(model.backbone, block) for block in (3, 4, 5)],
            channels,
            extra_blocks=LastLevelP6P7(channels, channels),
        )

    def pyramid(self, c3: Tensor, c4: Tensor, c5: Tensor) -> list[Tensor]:
        """Maps at strides 8, 16, 32 -> P3..P7 at strides 8 to 128."""
        maps = self.fpn(OrderedDict(zip(("0", "1", "2"), (c3, c4, c5), strict=True)))
        return list(maps.values())


class Detector(nn.Module):
    """RetinaNet for one class; the re-ID branch can read the maps of its backbone.

    All methods take images (B, 3, H, W), uint8 or float in 0..1, already placed on the network's input, and
    normalise them. The state dict has torchvision's names, so torchvision's weights load. `build_detector`
    builds one.

    Parameters
    ----------
    model
        The network.
    loss
        Its loss.

    Examples
    --------
    >>> model = DetectorModel(
    ...     backbone="resnet18", initial_weights=None, norm="group", fpn_channels=8, head_convolutions=1
    ... )
    >>> Detector(model, DetectionLoss()).shared_maps(torch.zeros(1, 3, 64, 64), "j3").shape
    torch.Size([1, 128, 8, 8])
    """

    GRAPHS: ClassVar[tuple[str, ...]] = ("losses_graph", "candidates_graph", "shared_maps")
    """Methods that `prepare` compiles, each as one graph."""

    def __init__(self, model: DetectorModel, loss: DetectionLoss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.normalise = Normalise()
        self.backbone = BackboneWithFPN(model)
        self.anchor_grid = AnchorGrid(model)
        self.head = RetinaNetHead(model.fpn_channels, self.anchor_grid.per_cell, num_classes=1)
        for tower in (self.head.classification_head, self.head.regression_head):
            tower.conv = _tower(model.fpn_channels, model.head_convolutions)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Logits (B, A) and deltas (B, A, 4) of all anchors, and the maps C2..C5: tensors only."""
        maps = self.backbone.body(self.normalise(images))
        output = self.head(self.backbone.pyramid(*maps[1:]))
        return output["cls_logits"].squeeze(-1), output["bbox_regression"], maps

    def candidates(
        self, images: Tensor, placements: Sequence[Placement], variant: str | None = None
    ) -> tuple[Candidates, Tensor | None]:
        """The best boxes of each image before suppression, and the variant's shared map, in one pass.

        placements: where each picture lies on its input; images without one, the last ones, are padding.
        """
        pictures = picture_boxes(placements, images)
        return self.candidates_graph(images, self._anchors(images), pictures, variant)

    def losses(
        self, images: Tensor, targets: PaddedTargets, variant: str | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(classification, regression), each (B,), see `detection_losses`; and the variant's shared map."""
        return self.losses_graph(images, self._anchors(images), targets, variant)

    def shared_maps(self, images: Tensor, variant: str) -> Tensor:
        """The map after C1..Ck of j2, j3 or j4, (B, C, H/stride, W/stride); later blocks are not computed."""
        maps: tuple[Tensor, ...] = self.backbone.body(self.normalise(images), last=SHARED_BLOCKS[variant])
        return maps[-1]

    def candidates_graph(
        self, images: Tensor, anchors: Tensor, pictures: Tensor, variant: str | None
    ) -> tuple[Candidates, Tensor | None]:
        """`candidates` as one graph."""
        logits, deltas, maps = self(images)
        levels = self.anchor_grid.levels(*images.shape[-2:])
        return best_candidates(logits, deltas, anchors, levels, pictures), shared_map(maps, variant)

    def losses_graph(
        self, images: Tensor, anchors: Tensor, targets: PaddedTargets, variant: str | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """`losses` as one graph."""
        logits, deltas, maps = self(images)
        return *detection_losses(logits, deltas, anchors, targets, self.loss), shared_map(maps, variant)

    def _anchors(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        return self.anchor_grid.anchors(height, width, images.device)

    @torch.no_grad()
    def detect(
        self,
        images: Tensor,
        placements: Sequence[Placement] | None = None,
        *,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_per_image: int = 100,
    ) -> list[ImageDetections]:
        """Detect the people in each image.

        Parameters
        ----------
        images
            (B, 3, H, W), uint8 or float in 0..1, on the network's input.
        placements
            Where each picture lies on its input, for at least one image; further images are padding and are
            left out. By default, a picture fills its input.
        score_threshold
            Minimum score of a detection.
        nms_threshold
            Detections that overlap a better one by more than this IoU are suppressed.
        max_per_image
            Maximum number of detections per image.

        Returns
        -------
        list of ImageDetections
            Per image, best first: boxes (n, 4) in input pixels, clipped to the picture, and scores (n,).
        """
        if placements is None:
            height, width = images.shape[-2:]
            placements = [place_image(width, height, width, height)] * len(images)
        return suppress(
            self.candidates(images, placements)[0],
            len(placements),
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_per_image=max_per_image,
        )


def shared_map(maps: tuple[Tensor, ...], variant: str | None) -> Tensor | None:
    """The map among C2..C5 that a variant's branch reads."""
    return None if variant is None else maps[SHARED_BLOCKS[variant] - 2]


def build_detector(model: DetectorModel, loss: DetectionLoss | None = None) -> Detector:
    """A detector with random weights from torch's current generator; see `load_initial_weights`.

    Parameters
    ----------
    model
        The network.
    loss
        Its loss; by default that of the paper.

    Returns
    -------
    Detector
        On the CPU, in training mode.

    Examples
    --------
    >>> model = DetectorModel(
    ...     backbone="resnet18", initial_weights=None, norm="group", image_width=64, image_height=64,
    ...     fpn_channels=8, head_convolutions=1,
    ... )
    >>> found = build_detector(model).eval().detect(torch.zeros(2, 3, 64, 64), max_per_image=5)
    >>> [tuple(people.boxes.shape[1:]) for people in found]
    [(4,), (4,)]
    """
    return Detector(model, loss or DetectionLoss())


def detector_without_weights(model: DetectorModel, loss: DetectionLoss) -> Detector:
    """A detector that is about to be loaded, on the CPU: its parameters and statistics are zero.

    Drawing random ones for nothing takes longer than loading.
    """
    with torch.device("meta"):
        detector = Detector(model, loss)
    detector.to_empty(device="cpu")
    for tensor in (*detector.parameters(), *detector.buffers()):
        tensor.detach().zero_()
    # These hold numbers that no file of weights has.
    detector.normalise, detector.anchor_grid = Normalise(), AnchorGrid(model)
    return detector


def _tower(channels: int, convolutions: int) -> nn.Sequential:
    """Convolutions with ReLU between pyramid and prediction, initialised as in the paper."""
    tower = nn.Sequential(
        *(Conv2dNormActivation(channels, channels, norm_layer=None) for _ in range(convolutions))
    )
    for layer in tower.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return tower
