"""Everything that can be chosen, stage by stage, as frozen, typed models.

A recipe holds what changes a result and nothing else. Data locations, devices, worker counts and logging are
not part of it, because an artifact's key is computed from its recipe. Recipes do not import torch, so a run
can be planned without it.

Defaults are those of the paper (Loesch et al., ICIP 2019) where it states them; others say why.
"""

from personsearch_core.recipes.base import (
    Compute,
    Precision,
    Probability,
    Recipe,
    Schedule,
    Seed,
    Variant,
    later,
)
from personsearch_core.recipes.detector import (
    BATCH_NORM_EPSILON,
    BOTTLENECK_EXPANSION,
    DetectionLoss,
    DetectorAugmentation,
    DetectorModel,
    DetectorRecipe,
    DetectorSchedule,
    DetectorTraining,
    block_channels,
)
from personsearch_core.recipes.evaluation import (
    EVALUATION_FIELDS,
    ContextMatching,
    EvaluationRecipe,
    GallerySize,
    ReRanking,
)
from personsearch_core.recipes.features import (
    DEFAULT_ROI_SIZE,
    SHARED_BLOCKS,
    SHARED_STRIDE,
    DetectionOptions,
    DetectionsRecipe,
    FeatureCodec,
    FeatureOptions,
    FeaturesRecipe,
    FeatureView,
    RoiRecipe,
)
from personsearch_core.recipes.joint import JointOptions, JointRecipe
from personsearch_core.recipes.reid import (
    NEED_UNLABELLED,
    OBJECTIVE_FIELDS,
    PAPER_PHASES,
    BranchModel,
    GalleryRecipe,
    Objective,
    Phase,
    ReidRecipe,
    ReidSchedule,
    objective_versions,
)

__all__ = [
    "BATCH_NORM_EPSILON",
    "BOTTLENECK_EXPANSION",
    "DEFAULT_ROI_SIZE",
    "EVALUATION_FIELDS",
    "NEED_UNLABELLED",
    "OBJECTIVE_FIELDS",
    "PAPER_PHASES",
    "SHARED_BLOCKS",
    "SHARED_STRIDE",
    "BranchModel",
    "Compute",
    "ContextMatching",
    "DetectionLoss",
    "DetectionOptions",
    "DetectionsRecipe",
    "DetectorAugmentation",
    "DetectorModel",
    "DetectorRecipe",
    "DetectorSchedule",
    "DetectorTraining",
    "EvaluationRecipe",
    "FeatureCodec",
    "FeatureOptions",
    "FeatureView",
    "FeaturesRecipe",
    "GalleryRecipe",
    "GallerySize",
    "JointOptions",
    "JointRecipe",
    "Objective",
    "Phase",
    "Precision",
    "Probability",
    "ReRanking",
    "Recipe",
    "ReidRecipe",
    "ReidSchedule",
    "RoiRecipe",
    "Schedule",
    "Seed",
    "Variant",
    "block_channels",
    "later",
    "objective_versions",
]
