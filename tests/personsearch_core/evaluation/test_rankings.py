"""What a protocol asks is worked out once, however many settings rank by it."""

from __future__ import annotations

from typing import Any

import pytest

from personsearch_core.evaluation import rankings
from personsearch_core.evaluation.front import evaluate
from personsearch_core.recipes import EvaluationRecipe
from tests.personsearch_core.evaluation.test_front import inputs_of
from tests.personsearch_core.evaluation.test_properties import problem


def test_the_lists_of_a_protocol_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    search = rankings.listed_search

    def counted(queries: Any, lists: Any, **rules: bool) -> Any:
        searched.append(id(lists))
        return search(queries, lists, **rules)

    monkeypatch.setattr(rankings, "listed_search", counted)
    recipe = EvaluationRecipe(protocol="cuhk_sysu", gallery_sizes=("50", "100"), per_image_top_k=(1, 2))
    assert len(evaluate(recipe, inputs_of(problem(3))).searches) >= 4
    assert len(searched) == 2
