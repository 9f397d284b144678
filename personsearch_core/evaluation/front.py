"""`evaluate`: the one way from detections, queries and ground truth to the figures of a test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from personsearch_core.evaluation.boxes_per_image import best_budget
from personsearch_core.evaluation.comparison import Interval, bootstrap_interval
from personsearch_core.evaluation.inputs import EvaluationInputs
from personsearch_core.evaluation.parallel import MapBlocks, run_jobs, serially
from personsearch_core.evaluation.prepared import Prepared, Work
from personsearch_core.evaluation.ranking import SearchResult, headline
from personsearch_core.evaluation.search import best_detections
from personsearch_core.evaluation.settings import Setting, settings_of
from personsearch_core.evaluation.top_matches import TopMatches, top_matches
from personsearch_core.evaluation.zheng2017 import Zheng2017Result
from personsearch_core.recipes import EvaluationRecipe

if TYPE_CHECKING:
    from personsearch_core.evaluation.detection import DetectionResult


@dataclass(frozen=True, eq=False)
class Scored:
    """A setting with its result; `draws` and `seed` are the recipe's, for intervals."""

    setting: Setting
    score_threshold: float | None
    """The lowest score that was ranked; None = any."""
    result: SearchResult | Zheng2017Result
    draws: int = 0
    seed: int = 0

    def metrics(self) -> dict[str, float]:
        """`mAP`, `rank1`, `rank5`, `rank10`, and `mINP` where the protocol has it, as fractions."""
        return self.result.metrics() if isinstance(self.result, SearchResult) else headline(self.result)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals of `mAP` and `rank1` over resampled queries; none without draws."""
        if not self.draws:
            return {}
        rng = np.random.default_rng(self.seed)
        return {
            "mAP": bootstrap_interval(self.result.ap, rng, draws=self.draws),
            "rank1": bootstrap_interval(self.result.hits(1), rng, draws=self.draws),
        }


@dataclass(frozen=True, eq=False)
class EvaluationResults:
    """What `evaluate` returns.

    `searches` has a result for each setting, the headline first; `matches` has what the headline's queries
    found, and `detection` says how well people are detected: None where it was not asked for.
    """

    searches: tuple[Scored, ...]
    detection: DetectionResult | None = None
    matches: TopMatches | None = None

    def best_boxes_per_image(self) -> tuple[float, Scored] | None:
        """The average number of boxes per image with the best mAP (the smallest of equals), and its result.

        Papers report PRW this way. None where no setting has `boxes_per_image`.
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
        The protocol, what is varied, and how many times queries are resampled.
    inputs
        Detections, queries, ground truth and galleries as arrays; boxes are xyxy in pixels.
    settings
        What to score, the headline first; by default what the recipe asks for, `settings_of(recipe)`.
    detection_at
        The score from which a box counts for detection's recall and average precision; COCO's figures take
        all boxes. None leaves detection out, as do inputs without ground truth.
    keep_best
        How many matches of each query of the headline to return.
    map_blocks
        Where blocks of queries are ranked: `serially`, `in_threads(n)` or `on_dask(client)`.
    progress
        Called with the number of finished blocks and of all blocks.

    Returns
    -------
    EvaluationResults
        Figures are fractions; arrays of a result have one entry per query, in the order of the queries.

    Raises
    ------
    PersonSearchError
        Where inputs that the protocol needs are missing or do not fit together.

    Examples
    --------
    One person is searched in two further images, in the first of which another person is more similar.

    >>> import numpy as np
    >>> from personsearch_core import (
    ...     Detections, EvaluationInputs, EvaluationRecipe, GroundTruth, Queries, SearchProtocol, evaluate,
    ... )
    >>> left, right = [0, 0, 40, 100], [50, 0, 90, 100]
    >>> boxes = np.array([left, right, left], np.float32)
    >>> described = np.array([[0.8, 0.6], [1.0, 0.0], [0.6, 0.8]], np.float32)
    >>> image = np.array([1, 1, 2])
    >>> queries = Queries(np.array([0]), boxes[:1], described[1:2], person=np.array([7]))
    >>> inputs = EvaluationInputs(
    ...     detections=Detections(image, boxes, np.array([0.9, 0.8, 0.7], np.float32), described),
    ...     n_images=3,
    ...     protocols={"prw": SearchProtocol(queries)},
    ...     truth=GroundTruth(image, boxes, person=np.array([7, 8, 7])),
    ... )
    >>> results = evaluate(EvaluationRecipe(protocol="prw"), inputs)
    >>> {name: round(value, 3) for name, value in results.searches[0].metrics().items()}
    {'mAP': 0.583, 'rank1': 0.0, 'rank5': 1.0, 'rank10': 1.0, 'mINP': 0.667}
    >>> results.detection.recall
    1.0
    """
    settings = settings_of(recipe) if settings is None else settings
    searches: tuple[Scored, ...] = ()
    matches = None
    if settings:
        searches, matches = _search(Prepared(recipe, inputs, settings), keep_best, map_blocks, progress)
    detection = None
    if detection_at is not None and inputs.truth is not None:
        # pycocotools imports matplotlib, which a search need not wait for.
        from personsearch_core.evaluation.detection import evaluate_detection

        detection = evaluate_detection(
            inputs.detections, inputs.truth, inputs.n_images, score_threshold=detection_at
        )
    return EvaluationResults(searches, detection, matches)


def _search(
    prepared: Prepared, keep_best: int, map_blocks: MapBlocks, progress: Callable[[int, int], None] | None
) -> tuple[tuple[Scored, ...], TopMatches | None]:
    """Every setting's result, and the headline's matches."""
    recipe, settings = prepared.recipe, prepared.settings
    first = replace(prepared.task(settings[0]), keep_best=keep_best)
    work: list[Work]
    if recipe.protocol == "zheng2017":
        work = [prepared.zheng2017_work(setting) for setting in settings]
        work += [prepared.search_work(first, settings[0])] if keep_best else []
    else:
        tasks = [first, *(prepared.task(setting) for setting in settings[1:])]
        work = [prepared.search_work(task, setting) for task, setting in zip(tasks, settings, strict=True)]
    blocks = run_jobs([each.job for each in work], map_blocks, progress)
    searches = []
    for setting, each, of_setting in zip(settings, work, blocks, strict=False):
        result = each.finish(of_setting)
        threshold = prepared.chosen(setting).score_threshold
        searches.append(Scored(setting, threshold, result, recipe.bootstrap_samples, recipe.seed))
    if not keep_best:
        return tuple(searches), None
    best = best_detections(blocks[len(settings) if recipe.protocol == "zheng2017" else 0])
    truth = prepared.inputs.annotated("the best matches")
    queries = prepared.asked(settings[0]).queries
    return tuple(searches), top_matches(first.gallery, best, queries, truth)
