"""`evaluate`: from detections, queries and ground truth to the figures of a test set."""

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
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.rankings import chosen_detections, search_tasks, zheng2017_tasks
from personsearch_core.evaluation.search import SearchTask
from personsearch_core.evaluation.settings import Setting, settings_of
from personsearch_core.evaluation.top_matches import TopMatches, top_matches
from personsearch_core.evaluation.zheng2017 import Zheng2017Result, Zheng2017Task
from personsearch_core.recipes import EvaluationRecipe

if TYPE_CHECKING:
    from personsearch_core.evaluation.detection import DetectionResult


@dataclass(frozen=True, eq=False)
class Scored:
    """A setting with its result; `draws` and `seed` are the recipe's, for intervals."""

    setting: Setting
    result: SearchResult | Zheng2017Result
    draws: int = 0
    seed: int = 0

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals of `mAP` and `rank1` over resampled queries; empty without draws."""
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

    `searches` has a result per setting, the headline first; `matches` holds the best matches of the
    headline's queries and `detection` the detection figures, None if not requested.
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
        chosen = chosen_detections(inputs, settings)
        work: list[SearchTask | Zheng2017Task] = []
        if recipe.protocol == "zheng2017":
            work += zheng2017_tasks(inputs, settings, chosen)
            # It does not rank junk, which matches may include: they take a search of their own.
            searched = list(settings[:1]) if keep_best else []
        else:
            searched = list(settings)
        tasks = search_tasks(recipe, inputs, searched, chosen[: len(searched)])
        if keep_best:
            tasks[0] = replace(tasks[0], keep_best=keep_best)
        work += tasks
        blocks = run_jobs([task.job() for task in work], map_blocks, progress)
        searches = tuple(
            Scored(setting, task.result(part, each.score_threshold), recipe.bootstrap_samples, recipe.seed)
            for setting, task, part, each in zip(settings, work, blocks, chosen, strict=False)
        )
        if keep_best:
            truth = inputs.required("truth", "a match")
            matches = top_matches(tasks[0], blocks[len(work) - len(tasks)], truth)
    detection = None
    if detection_at is not None and inputs.truth is not None:
        # pycocotools imports matplotlib, which is slow and not needed for a search.
        from personsearch_core.evaluation.detection import evaluate_detection

        detection = evaluate_detection(
            inputs.detections, inputs.truth, inputs.n_images, score_threshold=detection_at
        )
    return EvaluationResults(searches, detection, matches)
