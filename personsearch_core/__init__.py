"""The science of person search: models, losses, samplers, training loops, protocols.

What stands here is loaded when it is first used; importing the package loads neither torch nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from personsearch_core.evaluation.front import EvaluationResults, Scored, evaluate
    from personsearch_core.evaluation.inputs import EvaluationInputs, SearchProtocol
    from personsearch_core.evaluation.records import Detections, GalleryLists, GroundTruth, Queries
    from personsearch_core.evaluation.settings import Setting
    from personsearch_core.recipes import EvaluationRecipe

_HOMES = {
    "evaluation.front": ("EvaluationResults", "Scored", "evaluate"),
    "evaluation.inputs": ("EvaluationInputs", "SearchProtocol"),
    "evaluation.records": ("Detections", "GalleryLists", "GroundTruth", "Queries"),
    "evaluation.settings": ("Setting",),
    "recipes": ("EvaluationRecipe",),
}
_HOME = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}

__all__ = [
    "Detections",
    "EvaluationInputs",
    "EvaluationRecipe",
    "EvaluationResults",
    "GalleryLists",
    "GroundTruth",
    "Queries",
    "Scored",
    "SearchProtocol",
    "Setting",
    "evaluate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
