from __future__ import annotations

import pytest

from personsearch_core.recipes import RoiRecipe, Variant


@pytest.mark.parametrize(
    ("variant", "size"), [("j2", (32, 16)), ("j3", (16, 8)), ("j4", (8, 4)), ("disj", (128, 64))]
)
def test_one_scale_gives_every_variant_the_same_share_of_its_default(
    variant: Variant, size: tuple[int, int]
) -> None:
    assert RoiRecipe(variant=variant, roi_scale=0.5).roi_size == size
    assert RoiRecipe(variant=variant, roi_scale=0.5, roi_height=7).roi_size == (7, size[1])
