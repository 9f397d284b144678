"""Detector and branch trained in one step."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, model_validator

from personsearch_core.recipes.base import Recipe
from personsearch_core.recipes.features import RoiRecipe
from personsearch_core.recipes.reid import BranchModel, Objective


class JointOptions(Recipe):
    """`L = L_det + weight * L_reid` in one step (Loesch et al. 2019, section 2), instead of two trainings.

    The branch reads the shared map of the detector's own batch at its people. Rate, optimiser and steps are
    the detector's.
    """

    branch: BranchModel = BranchModel()
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = (Objective(kind="oim"),)
    """A batch of scenes seldom shows a person twice. OIM compares with a table of all identities, and learns
    from every person; triplet losses learn only from those who are there twice."""
    weight: PositiveFloat = 1.0
    """Weight of the re-ID loss."""
    shared_gradients: bool = True
    """Whether the re-ID loss trains the shared layers; if not, it trains the branch alone."""


class JointRecipe(JointOptions):
    """With the ROIs that the branch reads."""

    roi: RoiRecipe

    @model_validator(mode="after")
    def _roi_is_in_the_map(self) -> JointRecipe:
        if self.roi.variant == "disj":
            raise ValueError("joint training needs a shared map, which disj has not: use j2, j3 or j4")
        if self.roi.margin:
            raise ValueError("joint training pools boxes as they are: set roi.margin to 0")
        return self
