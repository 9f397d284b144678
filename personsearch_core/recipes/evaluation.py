"""How a run is scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from personsearch_core.recipes.base import Probability, Recipe, Seed


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

    protocol: Literal["cuhk_sysu", "prw", "zheng2017", "drawn"] = "prw"
    """`drawn`: queries that the dataset's rule draws (`datasets.NAME.queries`), scored as PRW's."""
    gallery_sizes: Annotated[tuple[GallerySize, ...], Field(min_length=1)] = ("100",)
    """CUHK-SYSU only: which of its gallery files are scored."""
    score_threshold: Probability = 0.5
    cross_camera: bool = False
    """PRW and `drawn` only: leave out every frame of the query's camera."""
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
    "cross_camera": ("prw", "drawn"),
    "re_ranking": ("cuhk_sysu", "prw", "drawn"),
    "context_matching": ("cuhk_sysu", "prw", "drawn"),
}
"""The fields of an `EvaluationRecipe` that have an effect with some protocols alone."""
