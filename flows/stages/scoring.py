"""The result of each setting of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from flows.stages.settings import Setting
from flows.stages.test_set import TestSet
from personsearch_core.evaluation.boxes_per_image import (
    best_of_sweep,
    score_threshold_for,
    top_k_of_each_image,
)
from personsearch_core.evaluation.cbgm import with_context_matching
from personsearch_core.evaluation.comparison import Interval, bootstrap_interval
from personsearch_core.evaluation.cuhk_sysu import cuhk_sysu_task
from personsearch_core.evaluation.listed_prw import listed_prw_task
from personsearch_core.evaluation.matching import iou, match_threshold
from personsearch_core.evaluation.prw import prw_task
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.records import Detections, FloatArray
from personsearch_core.evaluation.rerank import with_k_reciprocal
from personsearch_core.evaluation.search import MapBlocks, run_search, serially
from personsearch_core.evaluation.similarities import query_blocks, similarities
from personsearch_core.evaluation.task import SearchTask
from personsearch_core.evaluation.zheng2017 import Zheng2017Result, evaluate_zheng2017
from personsearch_core.recipes import EvaluationRecipe

TOP_MATCHES = 10


@dataclass(frozen=True)
class Scored:
    """A setting with its result."""

    setting: Setting
    score_threshold: float | None
    result: SearchResult | Zheng2017Result
    query_ids: tuple[str, ...]
    interval: Interval | None = None
    """Of mAP, by resampling the queries."""

    @property
    def ap(self) -> FloatArray:
        return self.result.ap

    @property
    def mean_ap(self) -> float:
        return self.result.mean_ap

    def as_record(self) -> dict[str, Any]:
        return {
            "name": self.setting.name,
            "protocol": self.setting.protocol,
            "boxes_per_image": self.setting.boxes_per_image,
            "per_image_top_k": self.setting.per_image_top_k,
            "ground_truth_boxes": self.setting.ground_truth_boxes,
            "score_threshold": self.score_threshold,
            "mAP_interval": [self.interval.low, self.interval.high] if self.interval else None,
            **headline(self),
        }

    def curves(self, max_rank: int) -> dict[str, Any]:
        """CMC and, where the protocol has one, the mean precision-recall curve, for the report."""
        curves: dict[str, Any] = {"name": self.setting.name, "cmc": self.result.cmc(max_rank).tolist()}
        if isinstance(self.result, SearchResult):
            recall, precision = self.result.precision_recall()
            curves |= {"recall": recall.tolist(), "precision": precision.tolist()}
        return curves

    def per_query_table(self) -> pa.Table:
        columns = {
            "ap": pa.array(self.ap, pa.float64()),
            "rank": pa.array(self.result.rank, pa.int32()),
            "n_truths": pa.array(self.result.n_truths, pa.int32()),
            **{f"hit{k}": pa.array(self.result.hits(k)) for k in (1, 5, 10)},
        }
        name = pa.array([self.setting.name] * len(self.ap))
        return pa.table({"setting": name, "query_id": pa.array(self.query_ids, pa.string()), **columns})


def headline(scored: Scored) -> dict[str, float]:
    """mAP and rank-1/5/10 as fractions, with mINP where the protocol has it."""
    result = scored.result
    numbers = {"mAP": result.mean_ap} | {f"rank{k}": float(result.hits(k).mean()) for k in (1, 5, 10)}
    if isinstance(result, SearchResult):
        numbers["mINP"] = result.mean_inp
    return numbers


def best_boxes(results: Sequence[Scored]) -> dict[str, float]:
    """The number of boxes an image, on average, with the best mAP (the smallest of equals), and its figures.

    Papers report PRW so. Nothing where no such number was asked for.
    """
    swept = {k: result for result in results if (k := result.setting.boxes_per_image) is not None}
    if not swept:
        return {}
    budget, _ = best_of_sweep(swept.__getitem__, tuple(swept), key=lambda result: result.mean_ap)
    numbers = headline(swept[budget])
    return {
        "best_boxes_per_image": budget,
        "best_boxes_mAP": numbers["mAP"],
        "best_boxes_rank1": numbers["rank1"],
    }


def score(
    test: TestSet, setting: Setting, recipe: EvaluationRecipe, map_blocks: MapBlocks = serially
) -> Scored:
    """The result of one setting; `map_blocks` ranks blocks of queries somewhere else.

    Raises PersonSearchError and CatalogError for what does not fit together.
    """
    protocol = test.protocol(setting.protocol)
    chosen = chosen_detections(test, setting, recipe)
    threshold = chosen.score_threshold
    result: SearchResult | Zheng2017Result
    if recipe.protocol == "zheng2017":
        result = evaluate_zheng2017(
            chosen.detections,
            test.queries(protocol),
            test.truth,
            test.cameras,
            score_threshold=threshold,
            keep=chosen.keep,
        )
    else:
        result = run_search(search_task(test, setting, recipe), threshold, map_blocks)
    interval = None
    if recipe.bootstrap_samples:
        rng = np.random.default_rng(recipe.seed)
        interval = bootstrap_interval(result.ap, rng, draws=recipe.bootstrap_samples)
    query_ids = tuple(protocol.queries["query_id"].to_pylist())
    return Scored(setting, threshold, result, query_ids, interval)


def search_task(test: TestSet, setting: Setting, recipe: EvaluationRecipe) -> SearchTask:
    """Who is ranked for whom in a setting; for Zheng et al.'s protocol, as for PRW's, to look at matches."""
    protocol = test.protocol(setting.protocol)
    queries = test.queries(protocol)
    chosen = chosen_detections(test, setting, recipe)
    detections, threshold = chosen.ranked(), chosen.score_threshold
    if recipe.protocol == "cuhk_sysu":
        task = cuhk_sysu_task(
            detections,
            queries,
            test.lists(protocol),
            score_threshold=threshold,
            full_gallery=setting.full_gallery,
        )
    elif recipe.protocol == "drawn" and len(protocol.gallery):
        task = listed_prw_task(
            detections,
            queries,
            test.truth,
            test.cameras,
            test.lists(protocol),
            cross_camera=recipe.cross_camera,
            score_threshold=threshold,
        )
    else:
        task = prw_task(
            detections,
            queries,
            test.truth,
            test.cameras,
            cross_camera=recipe.cross_camera,
            score_threshold=threshold,
        )
    if setting.rescore == "re_ranking" and recipe.re_ranking is not None:
        options = recipe.re_ranking
        return with_k_reciprocal(task, options.k1, options.k2, options.weight, options.depth)
    if setting.rescore == "context_matching" and recipe.context_matching is not None:
        matching = recipe.context_matching
        return with_context_matching(task, queries, matching.k1, matching.k2, lift=matching.lift)
    return task


@dataclass(frozen=True, eq=False)
class Chosen:
    """The detections of a setting: all of them, and which are ranked.

    Both are needed where a detection's identity is decided among all, before any is left out. `keep` are row
    numbers; None keeps what reaches `score_threshold`.
    """

    detections: Detections
    score_threshold: float | None
    keep: np.ndarray | None = None

    def ranked(self) -> Detections:
        """Those that `keep` names; the threshold is still to be applied."""
        return self.detections if self.keep is None else self.detections.select(self.keep)


def chosen_detections(test: TestSet, setting: Setting, recipe: EvaluationRecipe) -> Chosen:
    """What a setting ranks."""
    if setting.ground_truth_boxes:
        return Chosen(test.truth_as_detections(), None)
    found = test.detections
    if setting.per_image_top_k is not None:
        return Chosen(found, None, top_k_of_each_image(found, setting.per_image_top_k))
    if setting.boxes_per_image is not None:
        return Chosen(found, score_threshold_for(found.scores, len(test.image_ids), setting.boxes_per_image))
    return Chosen(found, recipe.score_threshold)


def top_matches(test: TestSet, setting: Setting, recipe: EvaluationRecipe) -> pa.Table:
    """The ten most similar people of each query: query_id, rank, image_id, box, similarity, is_right.

    A match is right where it overlaps a box of the query's person by the protocol's rule.
    """
    protocol = test.protocol(setting.protocol)
    person = test.queries(protocol).people()
    task = search_task(test, setting, recipe)
    rows: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for block in query_blocks(task):
        for ranked, similarity in similarities(task, block):
            best = np.argsort(-similarity, kind="stable")[:TOP_MATCHES]
            rows.append(ranked[best])
            values.append(similarity[best])
    number = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
    row = np.concatenate(rows)
    boxes, image = task.gallery.boxes[row], task.gallery.image[row]
    ids = np.array(protocol.queries["query_id"].to_pylist())
    return pa.table(
        {
            "query_id": pa.array(ids[number].tolist(), pa.string()),
            "rank": pa.array(np.concatenate([np.arange(1, len(part) + 1) for part in rows]), pa.int32()),
            "image_id": test.image_ids.take(pa.array(image)),
            **{name: pa.array(boxes[:, i], pa.float32()) for i, name in enumerate(("x1", "y1", "x2", "y2"))},
            "similarity": pa.array(np.concatenate(values), pa.float32()),
            "is_right": pa.array(_shows(test, image, boxes, person[number])),
        }
    )


def _shows(test: TestSet, image: np.ndarray, boxes: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Whether each box (n, 4) of `image` (n,) overlaps a ground-truth box of `person` (n,) enough -> (n,)."""
    truth = test.truth
    labelled = np.flatnonzero(truth.person >= 0)
    if not len(labelled):
        return np.zeros(len(boxes), bool)
    key = truth.person[labelled] * len(test.image_ids) + truth.image[labelled]
    order = np.argsort(key, kind="stable")
    wanted = person * len(test.image_ids) + image
    place = np.searchsorted(key[order], wanted)
    place = np.minimum(place, len(order) - 1)
    candidate = labelled[order[place]]
    same = (truth.person[candidate] == person) & (truth.image[candidate] == image)
    enough = iou(boxes, truth.boxes[candidate]) >= match_threshold(truth.boxes[candidate].astype(np.float64))
    return same & enough
