from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from personsearch_core.recipes import (
    DetectionLoss,
    DetectorRecipe,
    EvaluationRecipe,
    FeatureOptions,
    Recipe,
    ReidRecipe,
    RoiRecipe,
    Variant,
)


@pytest.mark.parametrize(
    ("variant", "size"), [("j2", (32, 16)), ("j3", (16, 8)), ("j4", (8, 4)), ("disj", (128, 64))]
)
def test_one_scale_gives_every_variant_the_same_share_of_its_default(
    variant: Variant, size: tuple[int, int]
) -> None:
    assert RoiRecipe(variant=variant, roi_scale=0.5).roi_size == size
    assert RoiRecipe(variant=variant, roi_scale=0.5, roi_height=7).roi_size == (7, size[1])


@pytest.mark.parametrize("kind", [DetectorRecipe, FeatureOptions, ReidRecipe, EvaluationRecipe])
def test_seeds_are_not_negative(kind: type[Recipe]) -> None:
    with pytest.raises(ValidationError, match="seed"):
        kind.model_validate({"seed": -1})


@pytest.mark.parametrize("field", [{"focal_alpha": 1.5}, {"focal_alpha": -0.1}, {"focal_gamma": -1}])
def test_focal_losses_that_reward_mistakes_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="focal_"):
        DetectionLoss.model_validate(field)


@pytest.mark.parametrize(
    ("fields", "fitting"),
    [
        ({"gallery_sizes": ["50"]}, {"cuhk_sysu"}),
        ({"cross_camera": True}, {"prw"}),
        ({"re_ranking": {}}, {"cuhk_sysu", "prw"}),
        ({"context_matching": {}}, {"cuhk_sysu", "prw"}),
        ({"boxes_per_image": [5], "seed": 3}, {"cuhk_sysu", "prw", "zheng2017"}),
    ],
)
def test_fields_without_effect_on_a_protocol_are_refused(fields: dict[str, Any], fitting: set[str]) -> None:
    for protocol in ("cuhk_sysu", "prw", "zheng2017"):
        values = {"protocol": protocol, **fields}
        if protocol in fitting:
            recipe = EvaluationRecipe.model_validate(values)
            assert EvaluationRecipe.model_validate(recipe.model_dump(mode="json")) == recipe
        else:
            with pytest.raises(ValidationError, match=f"protocol {protocol} has no {next(iter(fields))}"):
                EvaluationRecipe.model_validate(values)


def test_cuhk_sysu_is_scored_with_at_least_one_gallery() -> None:
    with pytest.raises(ValidationError, match="gallery_sizes"):
        EvaluationRecipe.model_validate({"protocol": "cuhk_sysu", "gallery_sizes": []})
