"""The science of person search: models, losses, samplers, training loops, protocols.

Each name is loaded when it is first used: importing the package loads neither torch nor pandas.
`__init__.pyi` repeats the names for type checkers.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "boxes": "Boxes Placement box_areas clip_boxes mirror_boxes place_image widen_boxes",
    "data.decoding": "read_image",
    "data.sampling": "TrainingSet",
    "data.scenes": "Scene",
    "errors": "PersonSearchError",
    "evaluation.front": "EvaluationResults Scored evaluate",
    "evaluation.inputs": "EvaluationInputs SearchProtocol",
    "evaluation.records": "Detections GalleryLists GroundTruth Queries",
    "evaluation.settings": "Setting settings_of",
    "export": "export_programs load_model save_model",
    "identities": "UNLABELLED ReidLabels hold_out_identities",
    "losses": "batch_hard_triplet_loss build_objective semi_hard_triplet_loss",
    "models.branch": "Branch build_branch",
    "models.detector": "Detector build_detector",
    "search.network": "People PersonSearchNet",
    "models.weights": "load_branch load_detector load_initial_weights save_branch save_detector",
    "recipes": (
        "BranchModel Compute ContextMatching DetectionLoss DetectionsRecipe DetectorModel DetectorRecipe "
        "EvaluationRecipe FeaturesRecipe GalleryRecipe Objective Phase ReRanking ReidRecipe RoiRecipe "
        "Schedule"
    ),
    "sampling": "PKSampler",
    "schedules": "linear_cosine_decay rate_factor",
    "search.people": "FoundPeople Person",
    "search.top_k": "CoarseRows Similarities",
    "training.detector": "train_detector",
    "training.reid": "train_reid",
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _EXPORTS.items() for name in names.split()}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
