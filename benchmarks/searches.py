"""One setting of each protocol, from plain arrays: timed here, and checked against oracles in the tests."""

from __future__ import annotations

from typing import Any

from personsearch_core.evaluation.front import evaluate
from personsearch_core.evaluation.inputs import EvaluationInputs, SearchProtocol
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.records import Detections, GalleryLists, GroundTruth, IntArray, Queries
from personsearch_core.evaluation.settings import MatchingRules, Setting
from personsearch_core.evaluation.zheng2017 import Zheng2017Result
from personsearch_core.recipes import EvaluationRecipe

NAME = "search"


def search_prw(
    detections: Detections,
    queries: Queries,
    truth: GroundTruth,
    cameras: IntArray,
    *,
    cross_camera: bool = False,
    **options: Any,
) -> SearchResult:
    """PRW's protocol as papers report it; `options` are those of the setting, and `map_blocks`."""
    inputs = prw_inputs(detections, queries, truth, cameras)
    result = _search(EvaluationRecipe(cross_camera=cross_camera), inputs, **options)
    assert isinstance(result, SearchResult)
    return result


def search_zheng2017(
    detections: Detections, queries: Queries, truth: GroundTruth, cameras: IntArray, **options: Any
) -> Zheng2017Result:
    """PRW's original protocol."""
    inputs = prw_inputs(detections, queries, truth, cameras)
    result = _search(EvaluationRecipe(protocol="zheng2017"), inputs, **options)
    assert isinstance(result, Zheng2017Result)
    return result


def search_lists(
    detections: Detections, queries: Queries, lists: GalleryLists, **options: Any
) -> SearchResult:
    """CUHK-SYSU's protocol."""
    n_images = 1 + max(int(part.max(initial=-1)) for part in (detections.image, queries.image, lists.image))
    inputs = EvaluationInputs(detections, n_images, {NAME: SearchProtocol(queries, lists)})
    result = _search(EvaluationRecipe(protocol="cuhk_sysu"), inputs, **options)
    assert isinstance(result, SearchResult)
    return result


def prw_inputs(
    detections: Detections, queries: Queries, truth: GroundTruth, cameras: IntArray
) -> EvaluationInputs:
    protocols = {NAME: SearchProtocol(queries)}
    return EvaluationInputs(detections, len(cameras), protocols, truth, cameras=cameras)


def _search(
    recipe: EvaluationRecipe, inputs: EvaluationInputs, map_blocks: Any = None, **options: Any
) -> SearchResult | Zheng2017Result:
    where = {} if map_blocks is None else {"map_blocks": map_blocks}
    setting = Setting(NAME, NAME, rules=MatchingRules.of(recipe), **options)
    return evaluate(recipe, inputs, settings=[setting], detection_at=None, **where).searches[0].result
