"""What can be chosen, stage by stage, as frozen, typed models.

A recipe holds what changes a result and nothing else: where data lies, where results go, devices, worker
counts and logging are not here, because an artifact's key is computed over its recipe. This module imports no
torch, so that a plan can be made without it.

Defaults are the paper's (Loesch et al., ICIP 2019) where it says, and otherwise carry a sentence on why.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

Variant = Literal["j2", "j3", "j4", "disj"]
Probability = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
"""NumPy's generators take no negative one."""
Precision = Literal["fp32", "bf16", "fp16"]

SHARED_BLOCKS: dict[str, int] = {"j2": 2, "j3": 3, "j4": 4}
"""C1..Ck are shared with the detector: k by variant. `disj` shares none."""

DEFAULT_ROI_SIZE: dict[str, tuple[int, int]] = {
    "j2": (64, 32),
    "j3": (32, 16),
    "j4": (16, 8),
    "disj": (256, 128),
}
"""(height, width) of a pooled ROI: what a crop of 256x128 has at the stride of the shared block."""

BOTTLENECK_EXPANSION: dict[str, int] = {"resnet18": 1, "resnet34": 1, "resnet50": 4}


def block_channels(backbone: str, block: int) -> int:
    """Channels of C2..C5's maps (He et al. 2016, table 1)."""
    return BOTTLENECK_EXPANSION[backbone] * 64 * 2 ** (block - 2)


SHARED_STRIDE: dict[str, int] = {"j2": 4, "j3": 8, "j4": 16}
"""Pixels of the network's input a cell of the shared map."""


class Recipe(BaseModel):
    """Base of all recipes: unknown fields are refused, instances are immutable and hashable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Compute(Recipe):
    """How numbers are computed where it changes them; part of the key."""

    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False


class DetectorModel(Recipe):
    """RetinaNet on a ResNet + FPN (Lin et al. 2017), one class: person."""

    backbone: Literal["resnet18", "resnet34", "resnet50"] = "resnet50"
    fpn_channels: PositiveInt = 256
    head_convolutions: PositiveInt = 4
    image_width: PositiveInt = 640
    image_height: PositiveInt = 640
    resize: Literal["letterbox", "stretch"] = "letterbox"
    """The paper does not say; letterbox keeps a person's proportions."""
    norm: Literal["frozen_batch", "batch", "group"] = "frozen_batch"
    """`frozen_batch` needs initial weights: from scratch its statistics would never be learnt."""
    norm_epsilon: Annotated[float, Field(ge=0)] | None = None
    """Of frozen norms. By default 0 for torchvision's COCO weights, made so, and 1e-5 otherwise."""
    trainable_layers: Annotated[int, Field(ge=0, le=5)] = 5
    """5 = all. Freezing C1-C2, as torchvision does, would keep J2's maps from gaining by the aggregate."""
    initial_weights: str | None = "coco"
    """`coco`, `imagenet` (torchvision's enums), a .pth or .safetensors file, or null for random weights."""
    anchor_sizes: tuple[PositiveInt, ...] = (32, 64, 128, 256, 512)
    """One base size in pixels for each of the five pyramid levels P3-P7."""
    anchor_ratios: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0)
    """Height / width. The COCO head has nine anchors a cell: three ratios by three scales."""

    @property
    def epsilon(self) -> float:
        """`norm_epsilon` with its default filled in."""
        if self.norm_epsilon is not None:
            return self.norm_epsilon
        return 0.0 if self.initial_weights == "coco" else 1e-5

    @model_validator(mode="after")
    def _norm_can_be_learnt(self) -> DetectorModel:
        if self.norm == "frozen_batch" and self.initial_weights is None:
            raise ValueError("norm 'frozen_batch' needs initial_weights; from scratch use 'batch' or 'group'")
        if len(self.anchor_sizes) != 5:
            raise ValueError(f"anchor_sizes needs five entries (P3-P7), not {len(self.anchor_sizes)}")
        return self


class DetectionLoss(Recipe):
    """Focal loss (Lin et al. 2017) and box regression."""

    focal_alpha: Probability = 0.25
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    regression: Literal["smooth_l1", "l1"] = "smooth_l1"
    """The paper says smooth L1; torchvision's RetinaNet uses plain L1 by default."""
    smooth_l1_beta: PositiveFloat = 1.0 / 9.0
    """The paper gives none; 1/9 is the value of the reference RetinaNet implementation."""


class DetectorAugmentation(Recipe):
    """Applied to training images only; each is switched off by its neutral value."""

    horizontal_flip: Probability = 0.5
    scale_jitter: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Range of the factor by which the scene is zoomed before the letterbox; (1, 1) = off."""
    brightness: Annotated[float, Field(ge=0)] = 0.0
    contrast: Annotated[float, Field(ge=0)] = 0.0
    saturation: Annotated[float, Field(ge=0)] = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0

    @field_validator("scale_jitter")
    @classmethod
    def _smallest_first(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"scale_jitter is (smallest, largest), not ({value[0]:g}, {value[1]:g})")
        return value


class Schedule(Recipe):
    """Linear-cosine decay (Bello et al. 2017, as in TensorFlow) after a linear warm-up."""

    kind: Literal["linear_cosine", "constant"] = "linear_cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    warmup_factor: Probability = 0.001
    num_periods: float = 0.5
    alpha: float = 0.0
    beta: float = 0.001


class DetectorTraining(Recipe):
    """The paper's first step: batch 10, SGD with momentum 0.9, base rate 1e-3, 90 epochs."""

    epochs: PositiveInt = 90
    steps: PositiveInt | None = None
    """Total steps; overrides `epochs` when given."""
    batch_size: PositiveInt = 10
    lr: PositiveFloat = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    optimiser: Literal["sgd", "adamw"] = "sgd"
    schedule: Schedule = Schedule(warmup_steps=500)
    gradient_clip: PositiveFloat | None = None
    accumulate: PositiveInt = 1
    """Batches of `batch_size` whose gradients are averaged for one optimiser step."""
    keep: Literal["best", "last"] = "last"
    """Which weights the artifact holds; `best` needs a validation part."""
    validate_every_epochs: PositiveInt = 1
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of every training view's images that is not trained on: AP is measured on them, beside the
    validation views. A hash of the image's id and the recipe's seed chooses, so that an image stays on its
    side when others come or go. Neighbouring frames of a video fall on both sides, which flatters AP."""


class DetectorRecipe(Recipe):
    model: DetectorModel = DetectorModel()
    loss: DetectionLoss = DetectionLoss()
    augmentation: DetectorAugmentation = DetectorAugmentation()
    training: DetectorTraining = DetectorTraining()
    compute: Compute = Compute()
    seed: Seed = 0


class FeatureView(Recipe):
    """One way in which a box is cached: a cached map cannot be augmented, so views are further rows."""

    kind: Literal["plain", "mirrored", "jittered"] = "plain"
    copies: PositiveInt = 1
    """For `jittered`: how many copies of every box, each with a seeded shift and scale."""
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """For `jittered`: largest shift as a part of the box's width or height."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """For `jittered`: largest relative change of the box's size."""

    @property
    def rows(self) -> int:
        """How many rows of the store the view takes for every box."""
        return self.copies if self.kind == "jittered" else 1


class RoiRecipe(Recipe):
    """How a box becomes a fixed-size map (j2-j4) or crop (disj)."""

    variant: Variant = "j3"
    roi_height: PositiveInt | None = None
    roi_width: PositiveInt | None = None
    """By default what a crop of 256x128 has at the shared block's stride (see DEFAULT_ROI_SIZE)."""
    roi_scale: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Of that default: 0.5 halves height and width for every variant alike, so that variants compare."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Context added on each side, as a part of the box's size; the paper mentions none."""
    sampling_ratio: Annotated[int, Field(ge=0)] = 2
    """roi_align's samples a bin and axis; 0 adapts to the ROI's size."""

    @property
    def roi_size(self) -> tuple[int, int]:
        """(height, width) of a pooled ROI."""
        height, width = (max(1, round(self.roi_scale * side)) for side in DEFAULT_ROI_SIZE[self.variant])
        return (self.roi_height or height, self.roi_width or width)

    def row_shape(self, backbone: str) -> tuple[int, int, int]:
        """(C, H, W) of one row of the feature store; for disj, of a crop."""
        if self.variant == "disj":
            return (3, *self.roi_size)
        return (block_channels(backbone, SHARED_BLOCKS[self.variant]), *self.roi_size)


class FeatureOptions(Recipe):
    """Which boxes are cached, and in how many views; what a config may say beside the ROI."""

    boxes: Literal["identified", "all"] = "identified"
    """`all` adds unlabelled people: negatives for triplets, the queue of OIM."""
    views: tuple[FeatureView, ...] = (FeatureView(),)
    compression: Literal["none", "zstd"] = "none"
    """`zstd` for slow or remote disks: fewer bytes, and slower to read from a fast one."""
    batch_images: PositiveInt = 8
    compute: Compute = Compute()
    seed: Seed = 0

    @property
    def rows_per_box(self) -> int:
        """How many rows every box takes: one for each view and copy."""
        return sum(view.rows for view in self.views)


class FeaturesRecipe(FeatureOptions):
    """The pooled features of ground-truth boxes, computed once."""

    roi: RoiRecipe = RoiRecipe()
    dtype: Literal["float16", "float32", "uint8"] = "float16"
    """`uint8` is for the crops of disj, and only for them."""

    @model_validator(mode="after")
    def _dtype_fits_variant(self) -> FeaturesRecipe:
        if (self.dtype == "uint8") != (self.roi.variant == "disj"):
            raise ValueError(
                f"dtype {self.dtype!r} does not go with variant {self.roi.variant!r}: "
                "crops of disj are uint8, maps of j2-j4 are float16 or float32"
            )
        return self


class BranchModel(Recipe):
    """Replicated blocks C(k+1)*..C5* on a pooled ROI, pooling, and an embedding."""

    embedding_dim: PositiveInt = 256
    """The paper gives none; 256 is what OIM, NPSM and the later literature use."""
    pooling: Literal["average", "max", "gem"] = "average"
    normalise: bool = True
    """L2-normalised embeddings when describing people, so that a dot product ranks."""
    loss_normalise: bool = False
    """Whether the losses get normalised embeddings too; the soft margin of Hermans et al. wants them free."""
    last_stride: Literal[1, 2] = 2
    norm: Literal["frozen_batch", "batch", "group"] = "batch"
    initial_weights: Literal["detector", "imagenet", "random"] = "detector"
    """`detector`: the blocks that the detector trained on people; they match the shared map they stand on."""

    def frozen_epsilon(self, detector: DetectorModel) -> float:
        """Epsilon of frozen norms: what the weights were made with, ImageNet's or the detector's."""
        return 1e-5 if self.initial_weights == "imagenet" else detector.epsilon


class Objective(Recipe):
    """One term of a re-ID loss; `weight` multiplies it in the sum."""

    kind: Literal[
        "semi_hard_triplet",
        "batch_hard_triplet",
        "identity_softmax",
        "oim",
        "iel",
        "ioim",
        "center",
        "hep_softmax",
        "olp",
    ]
    weight: PositiveFloat = 1.0
    margin: PositiveFloat | Literal["soft"] | None = None
    """Triplets: by default 1.0 (semi-hard) and soft (batch-hard)."""
    squared: bool | None = None
    """Triplets: squared Euclidean distances (TensorFlow's semi-hard) or plain ones (Hermans et al.)."""
    temperature: PositiveFloat | None = None
    unlabelled_temperature: PositiveFloat | None = None
    """`ioim`: the temperature of the unlabelled entries."""
    momentum: Probability | None = None
    """What a memory keeps of its old value: OIM's table, the centres of `center` (1 - Wen et al.'s rate)."""
    queue: PositiveInt | None = None
    """Embeddings that are remembered. `oim`, `iel`, `ioim`: those of unlabelled people, by default 5,000, the
    value of OIM's authors for CUHK-SYSU; theirs for PRW is 500. `olp`: everybody's, by default 1,000."""
    threshold: float | None = None
    """`iel`: cosine similarity above which an unlabelled person takes an identity."""
    hard_identities: PositiveInt | None = None
    """`hep_softmax`: how many identities beside the batch's own enter the softmax."""

    @model_validator(mode="after")
    def _fields_have_an_effect(self) -> Objective:
        known = OBJECTIVE_FIELDS[self.kind]
        every = {name for names in OBJECTIVE_FIELDS.values() for name in names}
        idle = sorted(name for name in every - {*known} if getattr(self, name) is not None)
        if idle:
            raise ValueError(
                f"{self.kind} has no {' and no '.join(idle)}: beside weight it takes "
                f"{', '.join(known) or 'no field'}"
            )
        return self


OBJECTIVE_FIELDS: dict[str, tuple[str, ...]] = {
    "semi_hard_triplet": ("margin", "squared"),
    "batch_hard_triplet": ("margin", "squared"),
    "identity_softmax": (),
    "oim": ("temperature", "momentum", "queue"),
    "iel": ("temperature", "momentum", "queue", "threshold"),
    "ioim": ("temperature", "unlabelled_temperature", "momentum", "queue"),
    "center": ("momentum",),
    "hep_softmax": ("hard_identities",),
    "olp": ("temperature", "queue"),
}
"""The fields of an `Objective` that have an effect, by kind."""
NEED_UNLABELLED = ("iel", "ioim")
"""Objectives that differ from OIM only by what they do with unlabelled people."""


class Phase(Recipe):
    """A number of epochs with a sum of objectives."""

    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)]
    epochs: PositiveInt


PAPER_PHASES = (
    Phase(objectives=(Objective(kind="semi_hard_triplet"),), epochs=350),
    Phase(objectives=(Objective(kind="batch_hard_triplet"),), epochs=350),
)


class ReidRecipe(Recipe):
    """The paper's second step: 32 identities x 4 shots, Adam, base rate 1e-4, two phases of 350 epochs."""

    branch: BranchModel = BranchModel()
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)] = PAPER_PHASES
    identities_per_batch: Annotated[int, Field(ge=2)] = 32
    shots: Annotated[int, Field(ge=2)] = 4
    unlabelled_per_batch: Annotated[int, Field(ge=0)] = 0
    """Unlabelled boxes added to each batch, for OIM, IEL and as negatives of triplets."""
    lr: PositiveFloat = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    schedule: Schedule = Schedule()
    gradient_clip: PositiveFloat | None = None
    fused_optimiser: bool = True
    """One kernel for all parameters; rounds otherwise than the plain loop, so it is part of the recipe."""
    cuda_graphs: bool = False
    """With `compute.compile`, on CUDA: the branch is replayed as a graph; pays where launches dominate."""
    held_out_identities: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of the identities watched during training, split by connected components of shared images."""
    validate_every_epochs: PositiveInt = 10
    early_stopping: PositiveInt | None = None
    """Validations of a phase without a better mAP after which the phase ends, and the next one begins."""
    keep: Literal["best", "last"] = "last"
    compute: Compute = Compute()
    seed: Seed = 0

    @model_validator(mode="after")
    def _fields_have_an_effect(self) -> ReidRecipe:
        if self.branch.norm == "frozen_batch" and self.branch.initial_weights == "random":
            raise ValueError(
                "branch.norm 'frozen_batch' needs branch.initial_weights: random weights have no statistics, "
                "and frozen ones are never learnt; use 'batch' or 'group'"
            )
        if self.cuda_graphs and not self.compute.compile:
            raise ValueError("cuda_graphs has an effect only with compute.compile: true")
        kinds = {objective.kind for phase in self.phases for objective in phase.objectives}
        for kind in NEED_UNLABELLED:
            if kind in kinds and self.unlabelled_per_batch == 0:
                raise ValueError(
                    f"{kind} learns from unlabelled people: set unlabelled_per_batch above 0 "
                    "(and features.boxes: all), or use oim"
                )
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
    """Boxes, scores and pooled features of a test view, found once."""

    roi: RoiRecipe = RoiRecipe()
    dtype: Literal["float16", "float32", "uint8"] = "float16"


class GalleryRecipe(Recipe):
    """Embeddings of detections, query boxes and ground-truth boxes by the branch alone."""

    batch_rows: PositiveInt = 128
    untrained: bool = True
    """Also describe everybody by the branch as it was before training: what the training gained."""
    compute: Compute = Compute()


class ReRanking(Recipe):
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017)."""

    k1: PositiveInt = 20
    k2: PositiveInt = 6
    weight: Probability = 0.3
    """The paper's lambda: the share of the original distance."""
    depth: PositiveInt = 200
    """Of each query's ranking so many detections are re-ranked; the rest keeps its order below them."""


class ContextMatching(Recipe):
    """Context bipartite matching (Li and Miao, AAAI 2021): k1 candidates, k2 co-travellers."""

    k1: PositiveInt = 30
    k2: PositiveInt = 4
    lift: Literal["max", "sum"] = "max"
    """The match gets the greatest similarity of the matched pairs, as in SeqNet's code, or their sum."""


GallerySize = Literal["50", "100", "500", "1000", "2000", "4000", "full"]


class EvaluationRecipe(Recipe):
    """How embeddings of a test view are scored. The first protocol's numbers are the run's headline."""

    protocol: Literal["cuhk_sysu", "prw", "zheng2017"] = "prw"
    gallery_sizes: Annotated[tuple[GallerySize, ...], Field(min_length=1)] = ("100",)
    """CUHK-SYSU only: which of its gallery files are scored."""
    score_threshold: Probability = 0.5
    cross_camera: bool = False
    """PRW only: leave out every frame of the query's camera."""
    boxes_per_image: tuple[PositiveFloat, ...] = ()
    """Further settings: a global score threshold that leaves so many boxes an image on average."""
    per_image_top_k: tuple[PositiveInt, ...] = ()
    """Further settings: the best-scored k boxes of each image."""
    ground_truth_boxes: bool = False
    """Score the gallery's ground-truth boxes in place of detections, too."""
    re_ranking: ReRanking | None = None
    context_matching: ContextMatching | None = None
    bootstrap_samples: Annotated[int, Field(ge=0)] = 0
    """Resamplings of the queries for a confidence interval of mAP; 0 = none."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _fields_have_an_effect(self) -> EvaluationRecipe:
        # By value, because a stage's recipe spells out its defaults.
        default = EvaluationRecipe.model_fields
        for name, protocols in EVALUATION_FIELDS.items():
            if self.protocol not in protocols and getattr(self, name) != default[name].default:
                raise ValueError(
                    f"protocol {self.protocol} has no {name}: it is for {' and '.join(protocols)} only"
                )
        return self


EVALUATION_FIELDS: dict[str, tuple[str, ...]] = {
    "gallery_sizes": ("cuhk_sysu",),
    "cross_camera": ("prw",),
    "re_ranking": ("cuhk_sysu", "prw"),
    "context_matching": ("cuhk_sysu", "prw"),
}
"""The fields of an `EvaluationRecipe` that have an effect with some protocols alone."""
