"""The settings that an evaluation scores: a protocol of its inputs, and the variations on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from personsearch_core.recipes import (
    EVALUATION_FIELDS,
    ContextMatching,
    EvaluationRecipe,
    GallerySize,
    ReRanking,
)


@dataclass(frozen=True)
class MatchingRules:
    """The rules that published codes apply differently; by default those of SeqNet's.

    Parameters
    ----------
    original
        PRW's original protocol (Zheng et al., CVPR 2017) instead of the one that person-search papers use.
    cameras
        Which frames a query ranks, without lists: all but its own, only those of other cameras, or all of its
        own camera with its own frame among them.
    query
        A query's embedding: the one that is given for its box, or that of the detection in its image that
        overlaps the box best.
    similarity
        `dot` product of the embeddings as given, `cosine`, or minus the `euclidean` distance.
    truncate
        Ground truth in whole pixels: truncate the corners, or x, y, width and height.
    repeats
        Rank an image that a gallery lists twice twice. Its ground truth always counts twice.
    times_recall
        Multiply a query's AP by the fraction of its ground truths that were found.
    """

    original: bool = False
    cameras: Literal["all", "other", "same"] = "all"
    query: Literal["given", "detected"] = "given"
    similarity: Literal["dot", "cosine", "euclidean"] = "dot"
    truncate: Literal["corners", "sizes"] = "corners"
    repeats: bool = False
    times_recall: bool = True

    @classmethod
    def of(cls, recipe: EvaluationRecipe) -> MatchingRules:
        """Those that a recipe asks for."""
        cameras: Literal["all", "other"] = "other" if recipe.cross_camera else "all"
        return cls(original=recipe.protocol == "zheng2017", cameras=cameras)


@dataclass(frozen=True)
class Setting:
    """One way to score.

    Parameters
    ----------
    name
        Title in tables.
    protocol
        Name of one of the inputs' protocols.
    score_threshold
        Minimum score of a ranked detection; None ranks all.
    full_gallery
        For protocols with lists: rank all images instead.
    ground_truth_boxes
        Rank ground-truth boxes instead of detections.
    boxes_per_image
        Choose the score threshold that leaves this many boxes per image on average.
    per_image_top_k
        Keep the k best-scored boxes of each image instead of using a threshold.
    rescore
        Re-ranking or context matching.
    multi_shot
        Give each query the mean embedding of all queries of its person.
    rules
        The rules of matching, ranking and averaging.

    Examples
    --------
    >>> Setting("ten boxes per image", "prw", boxes_per_image=10).rules.cameras
    'all'
    """

    name: str
    protocol: str
    score_threshold: float | None = 0.5
    full_gallery: bool = False
    ground_truth_boxes: bool = False
    boxes_per_image: float | None = None
    per_image_top_k: int | None = None
    rescore: ReRanking | ContextMatching | None = None
    multi_shot: bool = False
    rules: MatchingRules = field(default_factory=MatchingRules)


def listed_protocol(size: GallerySize) -> str:
    """The protocol that lists galleries of a size; the full ones start from those of TestG50."""
    return "TestG50" if size == "full" else f"TestG{size}"


def settings_of(recipe: EvaluationRecipe) -> list[Setting]:
    """All settings of a recipe, the headline first.

    Parameters
    ----------
    recipe
        The protocol and its variations.

    Returns
    -------
    list of Setting
        What `evaluate` scores by default.

    Examples
    --------
    >>> [setting.name for setting in settings_of(EvaluationRecipe(ground_truth_boxes=True))]
    ['prw', 'prw, ground-truth boxes']
    """
    at, rules = recipe.score_threshold, MatchingRules.of(recipe)
    if recipe.protocol in EVALUATION_FIELDS["gallery_sizes"]:
        base = [
            Setting(f"gallery {size}", listed_protocol(size), at, size == "full", rules=rules)
            for size in recipe.gallery_sizes
        ]
    else:
        drawn = recipe.protocol == "drawn"
        base = [
            Setting(
                "drawn queries" if drawn else recipe.protocol, "drawn" if drawn else "prw", at, rules=rules
            )
        ]
    of_truth = [
        replace(each, name=f"{each.name}, ground-truth boxes", ground_truth_boxes=True) for each in base
    ]
    if recipe.ground_truth_boxes == "only":
        return of_truth
    first = base[0]
    more = [
        replace(first, name=f"{first.name}, {count:g} boxes an image", boxes_per_image=count)
        for count in recipe.boxes_per_image
    ]
    more += [
        replace(first, name=f"{first.name}, best {k} boxes of each image", per_image_top_k=k)
        for k in recipe.per_image_top_k
    ]
    if recipe.ground_truth_boxes:
        more += of_truth
    for title, rescore in (("re-ranked", recipe.re_ranking), ("CBGM", recipe.context_matching)):
        if rescore is not None:
            more += [replace(each, name=f"{each.name}, {title}", rescore=rescore) for each in base]
    return [*base, *more]
