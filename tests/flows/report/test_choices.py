"""Which queries and scenes are shown, and what counts as a departure from a recipe's defaults."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from flows.report.origin import departures
from flows.report.scenes import spread
from flows.report.strips import choose_queries
from personsearch_core.recipes import FeaturesRecipe, ReidRecipe, RoiRecipe
from storage.manifest import Identity, Manifest


@given(st.integers(0, 200), st.integers(0, 30))
def test_spread_gives_distinct_places_over_the_whole_length(length: int, count: int) -> None:
    places = spread(length, count)
    assert len(places) == min(length, count)
    assert (np.diff(places) > 0).all()
    if len(places):
        assert places[0] >= 0 and places[-1] == length - 1


def test_hardest_queries_first_and_those_without_a_match_last() -> None:
    table = pa.table(
        {
            "query_id": ["nobody", "easy", "hard", "middle", "harder", "easier"],
            "ap": [0.0, 0.9, 0.2, 0.5, 0.1, 1.0],
            "n_truths": [0, 3, 3, 3, 3, 3],
        }
    )
    assert [row["query_id"] for row in choose_queries(table, 2)] == ["harder", "hard", "easy", "nobody"]
    assert len(choose_queries(table, 50)) == 6
    assert choose_queries(table, 0) == []


def test_departures_are_what_is_not_the_default() -> None:
    recipe = ReidRecipe(lr=3e-4).model_dump(mode="json")
    assert list(departures(_manifest("reid", {"reid": recipe, "variant": "j3"}))) == [("lr", "0.0003")]


def test_a_size_spelled_out_is_no_departure() -> None:
    for variant, size in (("j3", (32, 16)), ("j2", (64, 32))):
        roi = RoiRecipe(variant=variant, roi_height=size[0], roi_width=size[1])
        found = dict(departures(_manifest("features", FeaturesRecipe(roi=roi).model_dump(mode="json"))))
        assert found == ({} if variant == "j3" else {"roi.variant": "j2"})


def _manifest(kind: str, recipe: dict[str, object]) -> Manifest:
    identity = Identity(kind=kind, version=1, recipe=recipe, inputs={})
    return Manifest(
        identity=identity, key=identity.key, content_digest="", files={}, created="2026-01-01", seconds=1.0
    )
