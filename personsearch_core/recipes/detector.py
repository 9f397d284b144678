"""The detector: network, loss and training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from personsearch_core.recipes.base import (
    Compute,
    InputSide,
    Probability,
    Recipe,
    Schedule,
    Seed,
    Side,
    later,
)

BATCH_NORM_EPSILON = 1e-5
"""PyTorch's default, with which torchvision's classifiers were trained."""

BOTTLENECK_EXPANSION: dict[str, int] = {"resnet18": 1, "resnet34": 1, "resnet50": 4}


def block_channels(backbone: str, block: int) -> int:
    """Channels of C2..C5's maps (He et al. 2016, table 1)."""
    return BOTTLENECK_EXPANSION[backbone] * 64 << (block - 2)


class DetectorModel(Recipe):
    """RetinaNet on a ResNet + FPN (Lin et al. 2017), one class: person."""

    backbone: Literal["resnet18", "resnet34", "resnet50"] = "resnet50"
    fpn_channels: Annotated[int, Field(gt=0, le=1024)] = 256
    head_convolutions: Annotated[int, Field(gt=0, le=16)] = 4
    image_width: InputSide = 640
    image_height: InputSide = 640
    resize: Literal["letterbox", "stretch"] = "letterbox"
    """The paper does not say; letterbox keeps a person's proportions."""
    decode: Annotated[Literal["full", "reduced", "nvjpeg"], later("full")] = "full"
    """How JPEGs are decoded for the network's input, in training and on test views. `reduced`: at 1/2, 1/4 or
    1/8 of their size where that is still no smaller than the input, which spares most of the work.
    `nvjpeg`: on the GPU, which must be an NVIDIA one. Each gives slightly other pixels."""
    norm: Literal["frozen_batch", "batch", "group"] = "frozen_batch"
    """`frozen_batch` needs initial weights: from scratch it would never learn its statistics."""
    norm_epsilon: Annotated[float, Field(ge=0)] | None = None
    """Epsilon of frozen norms. Default: 0 for torchvision's COCO weights (trained with it), else 1e-5. Others
    always have 1e-5."""
    trainable_layers: Annotated[int, Field(ge=0, le=5)] = 5
    """5 = all. Freezing C1-C2, as torchvision does, would keep J2's maps from learning from the datasets."""
    initial_weights: str | None = "coco"
    """`coco`, `imagenet` (torchvision's enums), a .pth or .safetensors file, or null for random weights."""
    anchor_sizes: tuple[Side, ...] = (32, 64, 128, 256, 512)
    """Base size in pixels for each of the five pyramid levels P3-P7."""
    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, max_length=16)] = (0.5, 1.0, 2.0)
    """Height / width. The COCO head has nine anchors per cell: three ratios x three scales."""

    @property
    def epsilon(self) -> float:
        """`norm_epsilon` with its default filled in."""
        if self.norm_epsilon is not None:
            return self.norm_epsilon
        return 0.0 if self.initial_weights == "coco" else BATCH_NORM_EPSILON

    @property
    def backbone_epsilon(self) -> float:
        """Epsilon that the backbone's norms compute with."""
        return self.epsilon if self.norm == "frozen_batch" else BATCH_NORM_EPSILON

    @model_validator(mode="after")
    def _norm_can_be_learnt(self) -> DetectorModel:
        if self.norm == "frozen_batch" and self.initial_weights is None:
            raise ValueError("norm 'frozen_batch' needs initial_weights; from scratch use 'batch' or 'group'")
        if len(self.anchor_sizes) != 5:
            raise ValueError(f"anchor_sizes needs five entries (P3-P7), not {len(self.anchor_sizes)}")
        return self


class DetectionLoss(Recipe):
    """Focal loss (Lin et al. 2017) and a loss of box regression."""

    focal_alpha: Probability = 0.25
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    regression: Literal["smooth_l1", "l1"] = "smooth_l1"
    """The paper says smooth L1; torchvision's RetinaNet uses plain L1 by default."""
    smooth_l1_beta: PositiveFloat = 1.0 / 9.0
    """The paper gives none; 1/9 is the value of the reference RetinaNet implementation."""


class DetectorAugmentation(Recipe):
    """Applied to training images only; each kind is off at its neutral value."""

    horizontal_flip: Probability = 0.5
    scale_jitter: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Range of the zoom factor, applied before the letterbox; (1, 1) = off."""
    brightness: Annotated[float, Field(ge=0)] = 0.0
    contrast: Annotated[float, Field(ge=0)] = 0.0
    saturation: Annotated[float, Field(ge=0)] = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0

    @field_validator("scale_jitter")
    @classmethod
    def _smallest_first(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"scale_jitter must be (smallest, largest), not ({value[0]:g}, {value[1]:g})")
        return value


class DetectorSchedule(Schedule):
    """Linear-cosine decay (Bello et al. 2017, as in TensorFlow) after a linear warm-up."""

    warmup_steps: Annotated[int, Field(ge=0)] = 500
    """The paper gives none; without warm-up the new heads disturb the pretrained backbone."""


class DetectorTraining(Recipe):
    """The paper's first step: batch 10, SGD with momentum 0.9, base rate 1e-3, 90 epochs."""

    epochs: PositiveInt = 90
    steps: PositiveInt | None = None
    """Total optimiser steps; overrides `epochs`."""
    batch_size: PositiveInt = 10
    lr: PositiveFloat = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    optimiser: Literal["sgd", "adamw"] = "sgd"
    schedule: DetectorSchedule = DetectorSchedule()
    gradient_clip: PositiveFloat | None = None
    accumulate: PositiveInt = 1
    """Number of batches of `batch_size` whose gradients are averaged per optimiser step."""
    keep: Literal["best", "last"] = "last"
    """Which weights the artifact holds; `best` needs validation images."""
    validate_every_epochs: PositiveInt = 1
    held_out: Annotated[float, Field(ge=0, lt=1), later(0.0)] = 0.0
    """Fraction of each training view's images to hold out: AP is measured on them, besides the validation
    views. A hash of the image id and the recipe's seed decides, so an image stays on its side when others are
    added or removed. Neighbouring frames of a video fall on both sides, which flatters AP."""


class DetectorRecipe(Recipe):
    model: DetectorModel = DetectorModel()
    loss: DetectionLoss = DetectionLoss()
    augmentation: DetectorAugmentation = DetectorAugmentation()
    training: DetectorTraining = DetectorTraining()
    compute: Compute = Compute()
    seed: Seed = 0
