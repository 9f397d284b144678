"""From boxes to features: ROI pooling, the feature store, and the detections of a test view."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from personsearch_core.recipes.base import Compute, Probability, Recipe, Seed, Variant, later
from personsearch_core.recipes.detector import block_channels

SHARED_BLOCKS: dict[str, int] = {"j2": 2, "j3": 3, "j4": 4}
"""C1..Ck are shared with the detector: k by variant. `disj` shares none."""

DEFAULT_ROI_SIZE: dict[str, tuple[int, int]] = {
    "j2": (64, 32),
    "j3": (32, 16),
    "j4": (16, 8),
    "disj": (256, 128),
}
"""(height, width) of a pooled ROI: a crop of 256x128 at the stride of the shared block."""

SHARED_STRIDE: dict[str, int] = {"j2": 4, "j3": 8, "j4": 16}
"""Pixels of the network's input per cell of the shared map."""

_MAX_ROI_SCALE = 4


class FeatureView(Recipe):
    """One way to cache a box. Cached maps cannot be augmented, so each view is a further row."""

    kind: Literal["plain", "mirrored", "jittered"] = "plain"
    copies: PositiveInt = 1
    """For `jittered`: number of copies per box, each with a seeded shift and scale."""
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """For `jittered`: maximum shift, as a fraction of the box's width or height."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """For `jittered`: maximum relative change of the box's size."""

    @property
    def rows(self) -> int:
        """Rows of the store per box."""
        return self.copies if self.kind == "jittered" else 1


class RoiRecipe(Recipe):
    """How a box becomes a fixed-size map (j2-j4) or crop (disj)."""

    variant: Variant = "j3"
    """`j2`, `j3`, `j4` share C1..C2, C3 or C4 with the detector; `disj` shares nothing and takes crops."""
    roi_height: Annotated[int, Field(gt=0, le=1024)] | None = None
    """Default: that of a 256x128 crop at the stride of the shared block; for `disj`, 256."""
    roi_width: Annotated[int, Field(gt=0, le=1024)] | None = None
    """Default: likewise; for `disj`, 128."""
    roi_scale: Annotated[float, Field(gt=0, le=_MAX_ROI_SCALE)] = 1.0
    """Factor on that default: 0.5 halves height and width for every variant, so that variants compare."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Context added on each side, as a fraction of the box's size; the paper mentions none."""
    sampling_ratio: Annotated[int, Field(ge=0, le=16)] = 2
    """Samples of `roi_align` per bin and axis; 0 adapts to the ROI's size."""
    operator: Annotated[Literal["roi_align", "roi_pool"], later("roi_align")] = "roi_align"
    """How a bin is read from the shared map. `roi_pool`: the maximum over whole cells (Girshick 2015), as the
    paper's words "ROI pooling" may mean; `roi_align`: the mean of bilinear samples (He et al. 2017)."""

    @model_validator(mode="after")
    def _fields_have_an_effect(self) -> RoiRecipe:
        if self.operator == "roi_pool" and self.variant == "disj":
            raise ValueError("disj cuts crops out of the image and has no operator: leave it out")
        samples = RoiRecipe.model_fields["sampling_ratio"].default  # by value: a dump spells it out
        if self.operator == "roi_pool" and self.sampling_ratio != samples:
            raise ValueError("roi_pool has no sampling_ratio, which is for roi_align only: leave it out")
        return self

    @property
    def roi_size(self) -> tuple[int, int]:
        """(height, width) of a pooled ROI."""
        height, width = _scaled(self.variant, self.roi_scale)
        return (self.roi_height or height, self.roi_width or width)

    def canonical(self) -> RoiRecipe:
        """The one spelling that keys have, so that equal sizes are one key however they are written.

        Height and width are spelled out; the scale is the shortest that gives both, or 1 where none does.
        """
        height, width = self.roi_size
        ratio = height / DEFAULT_ROI_SIZE[self.variant][0]
        scales = (round(ratio, digits) for digits in range(1, 17) if ratio <= _MAX_ROI_SCALE)
        fitting = (scale for scale in scales if scale and _scaled(self.variant, scale) == (height, width))
        return self.model_copy(
            update={"roi_height": height, "roi_width": width, "roi_scale": next(fitting, 1.0)}
        )

    def row_shape(self, backbone: str) -> tuple[int, int, int]:
        """(C, H, W) of one row of the feature store; for disj, of a crop."""
        if self.variant == "disj":
            return (3, *self.roi_size)
        return (block_channels(backbone, SHARED_BLOCKS[self.variant]), *self.roi_size)


def _scaled(variant: Variant, scale: float) -> tuple[int, int]:
    """(height, width) of a variant's default ROI, scaled."""
    height, width = DEFAULT_ROI_SIZE[variant]
    return (max(1, round(scale * height)), max(1, round(scale * width)))


class FeatureCodec(Recipe):
    """How rows are stored: fewer bytes for rows that are nearly those that were computed."""

    values: Literal["float", "int8"] = "float"
    """`int8`: of each channel of a row its minimum and a step size, and 8 bits per position."""
    channels: Annotated[int, Field(gt=0, le=2048)] | None = None
    """Store the projections of each row on this many principal axes of its channels, which are found in a
    sample of the rows; default: store all channels."""

    @property
    def is_none(self) -> bool:
        """Whether rows are stored as they are."""
        return self == FeatureCodec()


class FeatureOptions(Recipe):
    """Which boxes are cached, and in which views."""

    boxes: Literal["identified", "all"] = "identified"
    """`all` adds unlabelled people: negatives for triplets, entries of OIM's queue."""
    views: tuple[FeatureView, ...] = (FeatureView(),)
    compression: Literal["none", "zstd"] = "none"
    """`zstd` for slow or remote disks: fewer bytes, but slower to read from a fast disk."""
    codec: Annotated[FeatureCodec, later(FeatureCodec())] = FeatureCodec()
    batch_images: PositiveInt = 8
    compute: Compute = Compute()
    seed: Seed = 0

    @property
    def rows_per_box(self) -> int:
        """Rows per box: one per view and copy."""
        return sum(view.rows for view in self.views)


class FeaturesRecipe(FeatureOptions):
    """Pooled features of ground-truth boxes, computed once."""

    roi: RoiRecipe = RoiRecipe()
    dtype: Literal["float16", "float32", "uint8"] = "float16"
    """`uint8` for the crops of disj, and for nothing else."""

    @model_validator(mode="after")
    def _dtype_fits_variant(self) -> FeaturesRecipe:
        if (self.dtype == "uint8") != (self.roi.variant == "disj"):
            raise ValueError(
                f"dtype {self.dtype!r} does not go with variant {self.roi.variant!r}: "
                "crops of disj are uint8, maps of j2-j4 are float16 or float32"
            )
        if self.roi.variant == "disj" and not self.codec.is_none:
            raise ValueError("codec: crops of disj are bytes already; leave it out")
        return self


class DetectionOptions(Recipe):
    """Which detections of a test view are kept."""

    score_threshold: Probability = 0.05
    nms_threshold: Probability = 0.5
    max_per_image: PositiveInt = 100
    compression: Literal["none", "zstd"] = "none"
    batch_images: PositiveInt = 8
    compute: Compute = Compute()


class DetectionsRecipe(DetectionOptions):
    """Boxes, scores and pooled features of a test view, computed once."""

    roi: RoiRecipe = RoiRecipe()
    dtype: Literal["float16", "float32", "uint8"] = "float16"
