"""The re-ID branch: network, objectives, training and inference."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from personsearch_core.errors import did_you_mean
from personsearch_core.recipes.base import Compute, Probability, Recipe, Schedule, Seed, later
from personsearch_core.recipes.detector import BATCH_NORM_EPSILON, DetectorModel


class BranchModel(Recipe):
    """Replicated blocks C(k+1)*..C5* on a pooled ROI, pooling, and an embedding."""

    embedding_dim: Annotated[int, Field(gt=0, le=16_384)] = 256
    """The paper gives none; 256 is what OIM, NPSM and the later literature use."""
    pooling: Literal["average", "max", "gem"] = "average"
    """Pooling of the last block's map; `gem` is a generalised mean with a learnt exponent."""
    normalise: bool = True
    """L2-normalise embeddings that people are compared with, so that a dot product ranks."""
    loss_normalise: bool = False
    """Pass normalised embeddings to the losses too; the soft margin of Hermans et al. needs free ones."""
    last_stride: Literal[1, 2] = 2
    norm: Literal["frozen_batch", "batch", "group"] = "batch"
    norm_epsilon: Annotated[Annotated[float, Field(ge=0)] | None, later(None)] = None
    """Epsilon of the norms. Default: the backbone's for initial weights of the detector, whose blocks
    the branch then continues exactly (0 for COCO's weights); else 1e-5."""
    initial_weights: Literal["detector", "imagenet", "random"] = "detector"
    """`detector`: the blocks that the detector trained on people; they match their shared map."""

    def epsilon(self, detector: DetectorModel) -> float:
        """`norm_epsilon` with its default filled in."""
        if self.norm_epsilon is not None:
            return self.norm_epsilon
        return detector.backbone_epsilon if self.initial_weights == "detector" else BATCH_NORM_EPSILON

    def earlier_epsilon(self, detector: DetectorModel) -> float:
        """Epsilon of branches from before `norm_epsilon`: only frozen norms took the detector's."""
        of_detector = self.norm == "frozen_batch" and self.initial_weights == "detector"
        return detector.epsilon if of_detector else BATCH_NORM_EPSILON


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
    "metric_learning": ("loss", "loss_options", "miner", "miner_options"),
}
"""Fields of an `Objective`, by the kind that uses them."""


def _known_kind(kind: str) -> str:
    """One of ours, `metric_learning`, or an entry point; the latter's package is not loaded here."""
    if kind in OBJECTIVE_FIELDS:
        return kind
    offered = {point.name for point in entry_points(group="personsearch.objectives")}
    if kind not in offered:
        known = [*OBJECTIVE_FIELDS, *sorted(offered)]
        near = did_you_mean(kind, known)
        raise ValueError(f"choose {', '.join(known)}, or install the package that offers it{near}")
    return kind


def _none_if_empty(options: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError) as error:  # a recipe holds what JSON does
        raise ValueError(
            "options are finite numbers, text, true, false, lists, or sections of them"
        ) from error
    return options or None


Options = Annotated[dict[str, Any] | None, AfterValidator(_none_if_empty), later(None)]


class Objective(Recipe):
    """One term of a re-ID loss; `weight` multiplies it in the sum."""

    kind: Annotated[
        str, AfterValidator(_known_kind), Field(json_schema_extra={"enum": [*OBJECTIVE_FIELDS, "OTHER"]})
    ]
    """`metric_learning` is any loss of pytorch-metric-learning; packages may offer further kinds."""
    weight: PositiveFloat = 1.0
    margin: PositiveFloat | Literal["soft"] | None = None
    """Triplets: default 1.0 (semi-hard) or soft (batch-hard)."""
    squared: bool | None = None
    """Triplets: squared Euclidean distances (TensorFlow's semi-hard) or plain ones (Hermans et al.)."""
    temperature: PositiveFloat | None = None
    """`oim`, `iel`, `ioim`, `olp`: divides cosine similarities; default 0.1."""
    unlabelled_temperature: PositiveFloat | None = None
    """`ioim`: temperature of the unlabelled entries; default 0.2."""
    momentum: Probability | None = None
    """Weight of a memory's old value: OIM's table, or the centres of `center` (1 - Wen et al.'s rate)."""
    queue: PositiveInt | None = None
    """Number of embeddings to remember. `oim`, `iel`, `ioim`: of unlabelled people, default 5,000, as OIM's
    authors use for CUHK-SYSU (500 for PRW). `olp`: of all people, default 1,000."""
    threshold: float | None = None
    """`iel`: minimum cosine similarity at which an unlabelled person takes an identity."""
    hard_identities: PositiveInt | None = None
    """`hep_softmax`: number of identities in the softmax besides the batch's own."""
    loss: Annotated[str | None, later(None)] = None
    """`metric_learning`: name of the loss, such as CircleLoss; it sees people with an identity only."""
    loss_options: Options = None
    """`metric_learning`: the loss's arguments, except the numbers of identities and dimensions. A distance,
    reducer or regularizer is written `{name: LpDistance, p: 2}`."""
    miner: Annotated[str | None, later(None)] = None
    """`metric_learning`: name of the miner, such as MultiSimilarityMiner; by default, nothing is mined."""
    miner_options: Options = None
    """`metric_learning`: the miner's arguments."""
    options: Options = None
    """Arguments of an objective that another package offers."""

    @model_validator(mode="after")
    def _fields_have_an_effect(self) -> Objective:
        known = OBJECTIVE_FIELDS.get(self.kind, ("options",))
        every = {"options", *(name for names in OBJECTIVE_FIELDS.values() for name in names)}
        idle = sorted(name for name in every - {*known} if getattr(self, name) is not None)
        if idle:
            raise ValueError(
                f"{self.kind} has no {' and no '.join(idle)}: besides weight it takes "
                f"{', '.join(known) or 'no field'}"
            )
        return self

    @model_validator(mode="after")
    def _other_packages_accept_it(self) -> Objective:
        """Builds it on trial. These packages load torch, so a plan does too if a config asks for them."""
        if self.kind == "metric_learning" and self.loss is None:
            raise ValueError("metric_learning needs loss: the name of one of pytorch-metric-learning's")
        if self.miner is None and self.miner_options is not None:
            raise ValueError("miner_options need a miner")
        if self.kind == "metric_learning" or self.is_third_party:
            from personsearch_core.losses.build import check_objective

            check_objective(self)
        return self

    @property
    def is_third_party(self) -> bool:
        """Whether another package's entry point offers it."""
        return self.kind not in OBJECTIVE_FIELDS

    @property
    def name(self) -> str:
        """What it is called in logs."""
        return self.loss or self.kind


def objective_versions(objectives: Iterable[Objective]) -> dict[str, int]:
    """Versions of the objectives that other packages offer, by name; loads those packages."""
    names = sorted({objective.kind for objective in objectives if objective.is_third_party})
    if not names:
        return {}
    from personsearch_core.losses.third_party import objective_version

    return {name: objective_version(name) for name in names}


NEED_UNLABELLED = ("iel", "ioim")
"""Objectives that differ from OIM only in how they treat unlabelled people."""


class ReidSchedule(Schedule):
    """Linear-cosine decay (Bello et al. 2017, as in TensorFlow) after a linear warm-up."""

    span: Annotated[Literal["run", "phase"], later("run")] = "run"
    """What the schedule spans; the paper does not say. `run`: one decay over all phases, and the optimiser's
    moments carry over. `phase`: warm-up, decay and moments start again with each phase."""


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
    """Unlabelled boxes per batch, for OIM and IEL, and as negatives of triplets."""
    lr: PositiveFloat = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    schedule: ReidSchedule = ReidSchedule()
    gradient_clip: PositiveFloat | None = None
    fused_optimiser: bool = True
    """One kernel for all parameters; rounds differently from the plain loop, so it is part of the recipe."""
    cuda_graphs: bool = False
    """With `compute.compile`, on CUDA: replay the branch, and the objectives compiled with it, as a graph;
    worth it where launches dominate."""
    held_out_identities: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the identities to hold out and validate on, in connected components of shared images."""
    validate_every_epochs: PositiveInt = 10
    early_stopping: PositiveInt | None = None
    """End a phase after this many validations without a better mAP, and begin the next."""
    keep: Literal["best", "last"] = "last"
    compute: Compute = Compute()
    seed: Seed = 0

    @model_validator(mode="after")
    def _fields_have_an_effect(self) -> ReidRecipe:
        if self.branch.norm == "frozen_batch" and self.branch.initial_weights == "random":
            raise ValueError(
                "branch.norm 'frozen_batch' needs branch.initial_weights: random weights have no "
                "statistics, and frozen norms never learn them; use 'batch' or 'group'"
            )
        if self.cuda_graphs and not self.compute.compile:
            raise ValueError("cuda_graphs needs compute.compile: true")
        kinds = {objective.kind for phase in self.phases for objective in phase.objectives}
        for kind in NEED_UNLABELLED:
            if kind in kinds and self.unlabelled_per_batch == 0:
                raise ValueError(
                    f"{kind} learns from unlabelled people: set unlabelled_per_batch above 0 "
                    "(and features.boxes: all), or use oim"
                )
        return self


class GalleryRecipe(Recipe):
    """Embeddings of detections, query boxes and ground-truth boxes."""

    batch_rows: PositiveInt = 128
    untrained: bool = True
    """Also embed with the untrained branch, to show what training gained."""
    compute: Compute = Compute()
