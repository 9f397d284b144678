"""RetinaNet (Lin et al. 2017) for one class, built of torchvision's parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import Conv2dNormActivation, nms
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from personsearch_core.boxes import Placement, place_image
from personsearch_core.models.anchors import AnchorGrid, Targets
from personsearch_core.models.backbone import Backbone
from personsearch_core.models.detection_loss import BOX_CODER, detection_losses
from personsearch_core.recipes import SHARED_BLOCKS, DetectionLoss, DetectorModel, block_channels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CANDIDATES_PER_LEVEL = 1000
"""Number of best anchors per pyramid level to decode, as in the reference implementation."""


class HeadOutput(NamedTuple):
    """Output of the heads: logits (B, A), deltas (B, A, 4); anchors (A, 4) in input pixels.

    levels: number of anchors in each of P3..P7, in order.
    """

    logits: Tensor
    deltas: Tensor
    anchors: Tensor
    levels: tuple[int, ...]


class ImageDetections(NamedTuple):
    """People found in one image, best first: boxes (n, 4) in input pixels, scores (n,)."""

    boxes: Tensor
    scores: Tensor


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
    normalise them. The state dict has torchvision's names, so torchvision's weights load.
    """

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

    def heads(self, images: Tensor) -> HeadOutput:
        """The heads' output with its anchors."""
        return self.heads_and_shared(images, None)[0]

    def heads_and_shared(self, images: Tensor, variant: str | None) -> tuple[HeadOutput, Tensor | None]:
        """The heads' output and the variant's shared map (None without a variant), in one pass."""
        logits, deltas, maps = self(images)
        height, width = images.shape[-2:]
        grid = self.anchor_grid
        output = HeadOutput(
            logits, deltas, grid.anchors(height, width, images.device), grid.levels(height, width)
        )
        return output, None if variant is None else maps[SHARED_BLOCKS[variant] - 2]

    def shared_maps(self, images: Tensor, variant: str) -> Tensor:
        """The map after C1..Ck of j2, j3 or j4, (B, C, H/stride, W/stride); later blocks are not computed."""
        body: Backbone = self.backbone.body
        return body.up_to(self.normalise(images), SHARED_BLOCKS[variant])

    def losses(self, images: Tensor, targets: Sequence[Targets]) -> tuple[Tensor, Tensor]:
        """(classification, regression), each (B,); see `detection_losses`."""
        output = self.heads(images)
        return detection_losses(output.logits, output.deltas, output.anchors, targets, self.loss)

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
        return select_detections(
            self.heads(images),
            placements,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_per_image=max_per_image,
        )


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


@torch.no_grad()
def select_detections(
    output: HeadOutput,
    placements: Sequence[Placement],
    *,
    score_threshold: float,
    nms_threshold: float,
    max_per_image: int,
) -> list[ImageDetections]:
    """Decode the best anchors per level above the threshold, clip them, then suppress non-maxima.

    Boxes are clipped to the picture and not to the padding around it, as torchvision does: what a box covers
    of the padding would count in its overlaps. Images without a placement, the last ones, are left out.
    """
    pictures = torch.tensor([placement.target for placement in placements], device=output.logits.device)
    top_left, bottom_right = pictures[:, None, [0, 1, 0, 1]].float(), pictures[:, None, [2, 3, 2, 3]].float()
    boxes, scores = [], []
    first = 0
    for size in output.levels:
        level = slice(first, first + size)
        first += size
        level_scores = torch.sigmoid(output.logits[: len(pictures), level].float())
        best, anchor = level_scores.topk(min(CANDIDATES_PER_LEVEL, size), dim=1)
        deltas = output.deltas[: len(pictures), level].float().gather(1, anchor[..., None].expand(-1, -1, 4))
        anchors = output.anchors[level][anchor.flatten()]
        decoded = BOX_CODER.decode_single(deltas.flatten(0, 1), anchors)
        boxes.append(decoded.view(*anchor.shape, 4).clamp(top_left, bottom_right))
        scores.append(best)
    return [
        _suppress(*image, score_threshold, nms_threshold, max_per_image)
        for image in zip(torch.cat(boxes, dim=1), torch.cat(scores, dim=1), strict=True)
    ]


def _suppress(
    boxes: Tensor, scores: Tensor, score_threshold: float, nms_threshold: float, max_per_image: int
) -> ImageDetections:
    keep = scores > score_threshold
    boxes, scores = boxes[keep], scores[keep]
    best = nms(boxes, scores, nms_threshold)[:max_per_image]
    return ImageDetections(boxes[best], scores[best])


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
