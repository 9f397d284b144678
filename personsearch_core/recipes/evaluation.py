"""How a run is evaluated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from personsearch_core.recipes.base import Probability, Recipe, Seed, later


class ReRanking(Recipe):
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017)."""

    k1: PositiveInt = 20
    k2: PositiveInt = 6
    weight: Probability = 0.3
    """The paper's lambda: the share of the original distance."""
    depth: PositiveInt = 200
    """Number of detections per query that are re-ranked; the rest keep their order below them."""


class ContextMatching(Recipe):
    """Context bipartite matching (Li and Miao, AAAI 2021): k1 candidates, k2 co-travellers."""

    k1: PositiveInt = 30
    k2: PositiveInt = 4
    lift: Literal["max", "sum"] = "max"
    """Lift a match to the greatest similarity of the matched pairs (as in SeqNet's code) or to their sum."""


GallerySize = Literal["50", "100", "500", "1000", "2000", "4000", "full"]


class EvaluationRecipe(Recipe):
    """How the embeddings of a test view are scored. The first setting is the run's headline."""

    protocol: Literal["cuhk_sysu", "prw", "zheng2017", "drawn"] = "prw"
    """`drawn`: queries drawn by the dataset's rule (`datasets.NAME.queries`), scored like PRW's."""
    gallery_sizes: Annotated[tuple[GallerySize, ...], Field(min_length=1)] = ("100",)
    """CUHK-SYSU only: the gallery sizes to score."""
    score_threshold: Probability = 0.5
    cross_camera: bool = False
    """PRW and `drawn` only: leave out all frames of the query's camera."""
    boxes_per_image: tuple[PositiveFloat, ...] = ()
    """Also score with the score threshold that leaves this many boxes per image on average."""
    per_image_top_k: tuple[PositiveInt, ...] = ()
    """Also score with the k best-scored boxes of each image."""
    ground_truth_boxes: bool | Literal["only"] = False
    """Also score with ground-truth boxes instead of detections. `only`: with nothing else, for
    `features.use`."""
    re_ranking: ReRanking | None = None
    context_matching: ContextMatching | None = None
    readings: Annotated[Literal["all"] | None, later(None)] = None
    """`all`: also score by every published code's rules (`personsearch_core.evaluation.readings`)."""
    bootstrap_samples: Annotated[int, Field(ge=0)] = 0
    """Number of bootstrap samples for confidence intervals of mAP and rank-1; 0 = none."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _fields_have_an_effect(self) -> EvaluationRecipe:
        # By value, because a stage's recipe spells out its defaults.
        default = EvaluationRecipe.model_fields
        if self.ground_truth_boxes == "only":
            for name in _OF_DETECTIONS:
                if getattr(self, name) != default[name].default:
                    raise ValueError(f"{name} is for detections, which `ground_truth_boxes: only` leaves out")
        for name, protocols in EVALUATION_FIELDS.items():
            if self.protocol not in protocols and getattr(self, name) != default[name].default:
                raise ValueError(
                    f"protocol {self.protocol} has no {name}: it is for {' and '.join(protocols)} only"
                )
        return self


_OF_DETECTIONS = (
    *("score_threshold", "boxes_per_image", "per_image_top_k", "re_ranking"),
    *("context_matching", "readings"),
)
EVALUATION_FIELDS: dict[str, tuple[str, ...]] = {
    "gallery_sizes": ("cuhk_sysu",),
    "cross_camera": ("prw", "drawn"),
    "readings": ("cuhk_sysu", "prw", "zheng2017"),
    "re_ranking": ("cuhk_sysu", "prw", "drawn"),
    "context_matching": ("cuhk_sysu", "prw", "drawn"),
}
"""Fields of an `EvaluationRecipe` that only some protocols use."""
