"""The settings that an evaluation asks for: a protocol of the catalog, and what is varied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from personsearch_core.recipes import EvaluationRecipe


@dataclass(frozen=True)
class Setting:
    """One way to score: a protocol of the catalog and what is varied."""

    name: str
    protocol: str
    full_gallery: bool = False
    ground_truth_boxes: bool = False
    boxes_per_image: float | None = None
    per_image_top_k: int | None = None
    rescore: Literal["re_ranking", "context_matching"] | None = None


def settings_of(recipe: EvaluationRecipe) -> list[Setting]:
    """All settings of a recipe, the headline first."""
    if recipe.protocol == "cuhk_sysu":
        base = [
            Setting(f"gallery {size}", "TestG50" if size == "full" else f"TestG{size}", size == "full")
            for size in recipe.gallery_sizes
        ]
    else:
        drawn = recipe.protocol == "drawn"
        base = [Setting("drawn queries", "drawn") if drawn else Setting(recipe.protocol, "prw")]
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
        more += [
            replace(each, name=f"{each.name}, ground-truth boxes", ground_truth_boxes=True) for each in base
        ]
    if recipe.re_ranking is not None and recipe.protocol != "zheng2017":
        more += [replace(each, name=f"{each.name}, re-ranked", rescore="re_ranking") for each in base]
    if recipe.context_matching is not None and recipe.protocol != "zheng2017":
        more += [replace(each, name=f"{each.name}, CBGM", rescore="context_matching") for each in base]
    return [*base, *more]
