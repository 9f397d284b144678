"""`evaluate`: from detections, queries and ground truth to the figures of a test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from personsearch_core.evaluation.boxes_per_image import best_budget
from personsearch_core.evaluation.comparison import Interval, query_interval
from personsearch_core.evaluation.inputs import EvaluationInputs
from personsearch_core.evaluation.joint import run_tasks
from personsearch_core.evaluation.parallel import MapBlocks, serially
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.rankings import effective, tasks_of
from personsearch_core.evaluation.search import SearchTask
from personsearch_core.evaluation.settings import Setting, settings_of
from personsearch_core.evaluation.top_matches import TopMatches, top_matches
from personsearch_core.evaluation.zheng2017 import Zheng2017Result
from personsearch_core.recipes import EvaluationRecipe

if TYPE_CHECKING:
    from personsearch_core.evaluation.detection import DetectionResult


@dataclass(frozen=True, eq=False)
class Scored:
    """A setting with its result.

    Attributes
    ----------
    setting
        What was scored.
    result
        `mean_ap` (a fraction), `ap` (Q,) and `hits(k)` (Q,), in the order of the queries.
    draws, seed
        Number of bootstrap samples of the recipe, and their seed, for `intervals`.
    """

    setting: Setting
    result: SearchResult | Zheng2017Result
    draws: int = 0
    seed: int = 0

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals of `mAP` and `rank1` over the same resampled queries; empty without draws."""
        if not self.draws:
            return {}
        return {
            "mAP": query_interval(self.result.ap, self.draws, self.seed),
            "rank1": query_interval(self.result.hits(1), self.draws, self.seed),
        }


@dataclass(frozen=True, eq=False)
class EvaluationResults:
    """What `evaluate` returns; its example shows how to read it.

    Attributes
    ----------
    searches
        A result per setting, the headline first.
    detection
        The detection figures, as fractions; None if not requested.
    matches
        The best matches of the headline's queries; None if not requested.
    """

    searches: tuple[Scored, ...]
    detection: DetectionResult | None = None
    matches: TopMatches | None = None

    def best_boxes_per_image(self) -> tuple[float, Scored] | None:
        """The average number of boxes per image with the best mAP (smallest among equals), and its result.

        Papers report PRW this way. None if no setting has `boxes_per_image`.
        """
        swept = {k: found for found in self.searches if (k := found.setting.boxes_per_image) is not None}
        if not swept:
            return None
        best = best_budget({k: found.result.mean_ap for k, found in swept.items()})
        return best, swept[best]


def evaluate(
    recipe: EvaluationRecipe,
    inputs: EvaluationInputs,
    *,
    settings: Sequence[Setting] | None = None,
    detection_at: float | None = 0.5,
    keep_best: int = 0,
    map_blocks: MapBlocks = serially,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationResults:
    """Score a person search by the protocol of a recipe.

    Similarities are computed once for all settings that rank the same queries and detections.

    Parameters
    ----------
    recipe
        The protocol, its variations, and the number of bootstrap samples.
    inputs
        Detections, queries, ground truth and galleries as arrays; boxes are xyxy in pixels.
    settings
        What to score, the headline first; by default `settings_of(recipe)`.
    detection_at
        Minimum score of a box in the recall and AP of detection; COCO's figures take all boxes. None skips
        detection, as do inputs without ground truth.
    keep_best
        Number of best matches to return per query of the headline.
    map_blocks
        Where to rank blocks of queries: `serially`, `in_threads(n)` or `on_dask(client)`.
    progress
        Called with the number of finished blocks and the total.

    Returns
    -------
    EvaluationResults
        Figures are fractions; arrays have one entry per query, in the order of the queries.

    Raises
    ------
    PersonSearchError
        If inputs that the protocol needs are missing or do not fit together.

    Examples
    --------
    A person appears in two other images; in the first, someone else is more similar.

    >>> import numpy as np
    >>> from personsearch_core import (
    ...     Detections, EvaluationInputs, EvaluationRecipe, GroundTruth, Queries, SearchProtocol, evaluate,
    ... )
    >>> left, right = [0, 0, 40, 100], [50, 0, 90, 100]
    >>> boxes = np.array([left, right, left], np.float32)
    >>> embeddings = np.array([[0.8, 0.6], [1.0, 0.0], [0.6, 0.8]], np.float32)
    >>> image = np.array([1, 1, 2])
    >>> queries = Queries(np.array([0]), boxes[:1], embeddings[1:2], person_id=np.array([7]))
    >>> inputs = EvaluationInputs(
    ...     detections=Detections(image, boxes, np.array([0.9, 0.8, 0.7], np.float32), embeddings),
    ...     n_images=3,
    ...     protocols={"prw": SearchProtocol(queries)},
    ...     truth=GroundTruth(image, boxes, person_id=np.array([7, 8, 7])),
    ... )
    >>> results = evaluate(EvaluationRecipe(protocol="prw"), inputs)
    >>> {name: round(value, 3) for name, value in results.searches[0].result.metrics().items()}
    {'mAP': 0.583, 'rank1': 0.0, 'rank5': 1.0, 'rank10': 1.0, 'mINP': 0.667}
    >>> results.detection.recall
    1.0
    """
    settings = settings_of(recipe) if settings is None else settings
    searches: tuple[Scored, ...] = ()
    matches = None
    if settings:
        searches, matches = _searched(recipe, inputs, settings, keep_best, map_blocks, progress)
    detection = None
    if detection_at is not None and inputs.truth is not None:
        # pycocotools imports matplotlib, which is slow and not needed for a search.
        from personsearch_core.evaluation.detection import evaluate_detection

        detection = evaluate_detection(
            inputs.detections, inputs.truth, inputs.n_images, score_threshold=detection_at
        )
    return EvaluationResults(searches, detection, matches)


def _searched(
    recipe: EvaluationRecipe,
    inputs: EvaluationInputs,
    settings: Sequence[Setting],
    keep_best: int,
    map_blocks: MapBlocks,
    progress: Callable[[int, int], None] | None,
) -> tuple[tuple[Scored, ...], TopMatches | None]:
    """The result of each setting, and the best matches of the first one if any are to be kept."""
    asked = [_ranked(setting, inputs) for setting in settings]
    # PRW's original protocol does not rank junk, which matches may include.
    headline = replace(asked[0], rules=replace(asked[0].rules, original=False))
    distinct = list(dict.fromkeys([*asked, headline] if keep_best else asked))
    tasks = tasks_of(recipe, inputs, distinct)
    kept = tasks[distinct.index(headline)] if keep_best else None
    if isinstance(kept, SearchTask):
        kept = tasks[distinct.index(headline)] = replace(kept, keep_best=keep_best)
    blocks = run_tasks(tasks, map_blocks, progress)
    results = {
        setting: task.result(part) for setting, task, part in zip(distinct, tasks, blocks, strict=True)
    }
    searches = tuple(
        Scored(setting, _averaged(setting, results[key]), recipe.bootstrap_samples, recipe.seed)
        for setting, key in zip(settings, asked, strict=True)
    )
    if not isinstance(kept, SearchTask):
        return searches, None
    truth = inputs.required("truth", "a match")
    return searches, top_matches(kept, blocks[distinct.index(headline)], truth)


def _ranked(setting: Setting, inputs: EvaluationInputs) -> Setting:
    """The setting as far as it decides a ranking: those that come to the same are ranked once."""
    return replace(setting, name="", rules=replace(effective(setting.rules, inputs), times_recall=True))


def _averaged(setting: Setting, result: SearchResult | Zheng2017Result) -> SearchResult | Zheng2017Result:
    if setting.rules.times_recall or not isinstance(result, SearchResult):
        return result
    return result.over_found()
