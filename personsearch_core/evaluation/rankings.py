"""What each setting of an evaluation ranks; work that settings share is done once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.boxes_per_image import score_threshold_for, top_k_of_each_image
from personsearch_core.evaluation.cbgm import with_context_matching
from personsearch_core.evaluation.cuhk_sysu import listed_search
from personsearch_core.evaluation.embeddings import (
    comparable_detections,
    comparable_queries,
    detected_queries,
    of_one_norm,
)
from personsearch_core.evaluation.inputs import EvaluationInputs, SearchProtocol
from personsearch_core.evaluation.joint import Task
from personsearch_core.evaluation.matching import GroupedDetections, group_by_image, keep_by_score
from personsearch_core.evaluation.multi_shot import pool_shots
from personsearch_core.evaluation.prw import search_boxes, search_in_lists, whole_search
from personsearch_core.evaluation.records import Detections, GroundTruth, ImageLists, IntArray, Queries
from personsearch_core.evaluation.rerank import with_k_reciprocal
from personsearch_core.evaluation.search import SearchTask
from personsearch_core.evaluation.settings import MatchingRules, Setting
from personsearch_core.evaluation.task import QueryTruths, Scope
from personsearch_core.evaluation.zheng2017 import (
    JUNK,
    DetectionLabels,
    label_detections,
    zheng2017_task,
)
from personsearch_core.identities import UNLABELLED
from personsearch_core.recipes import EVALUATION_FIELDS, EvaluationRecipe, ReRanking

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The rows of `detections` that a setting ranks."""

    detections: Detections
    rows: IntArray
    score_threshold: float | None


def tasks_of(recipe: EvaluationRecipe, inputs: EvaluationInputs, settings: Sequence[Setting]) -> list[Task]:
    """What each setting ranks. Settings share queries, ground truths and pools of detections as objects."""
    shared = _Shared(recipe, inputs)
    chosen = [shared.chosen(setting) for setting in settings]
    group = np.arange(inputs.n_images)
    if any(setting.rules.cameras != "all" for setting in settings):
        cameras = inputs.required("cameras", "a search across cameras")
        group = np.unique(cameras, return_inverse=True)[1]
    galleries = _galleries(chosen, group)
    found: dict[int, Task] = {}
    for name in dict.fromkeys(setting.protocol for setting in settings):
        protocol = inputs.protocol(name)  # One at a time: their lists take memory.
        for i, setting in enumerate(settings):
            if setting.protocol == name:
                task = shared.task(setting, protocol, chosen[i].detections, galleries[i], group)
                found[i] = replace(task, score_threshold=chosen[i].score_threshold)
    return [found[i] for i in range(len(settings))]


def effective(rules: MatchingRules, inputs: EvaluationInputs) -> MatchingRules:
    """The plainest rules with the same outcome on these inputs."""
    truncate, similarity = rules.truncate, rules.similarity
    if truncate == "sizes" and inputs.truth is not None:
        boxes = inputs.truth.boxes
        if np.array_equal(search_boxes(boxes), search_boxes(boxes, "sizes")):
            truncate = "corners"
    if similarity != "dot":
        both = (inputs.detections.embeddings, inputs.truth_embeddings)
        if all(of_one_norm(embeddings) for embeddings in both if embeddings is not None):
            similarity = "dot"
    return replace(rules, truncate=truncate, similarity=similarity)


class _Shared:
    """What settings have in common is made once."""

    def __init__(self, recipe: EvaluationRecipe, inputs: EvaluationInputs) -> None:
        self.recipe, self.inputs = recipe, inputs
        self._made: dict[Hashable, Any] = {}

    def chosen(self, setting: Setting) -> _Chosen:
        """What a setting ranks; PRW's original protocol ranks neither junk nor unlabelled people."""
        inputs, threshold = self.inputs, setting.score_threshold
        found = self._detections(setting)
        rows: IntArray
        if setting.ground_truth_boxes:
            rows, threshold = np.arange(len(found)), None
        elif setting.per_image_top_k is not None:
            rows, threshold = top_k_of_each_image(found, setting.per_image_top_k), None
        else:
            if setting.boxes_per_image is not None:
                threshold = score_threshold_for(found.scores, inputs.n_images, setting.boxes_per_image)
            rows = keep_by_score(found, threshold)
        if setting.rules.original:
            person = self._labels(found).person_id[rows]
            rows = rows[np.isin(person, (JUNK, UNLABELLED), invert=True)]
        return _Chosen(found, rows, threshold)

    def task(
        self,
        setting: Setting,
        protocol: SearchProtocol,
        detections: Detections,
        gallery: GroupedDetections,
        image_group: IntArray,
    ) -> Task:
        queries, hidden = self._queries(setting, protocol)
        if setting.rules.original:
            truth, cameras = (
                self.inputs.required(name, "protocol zheng2017") for name in ("truth", "cameras")
            )
            return zheng2017_task(gallery, detections, queries, truth, cameras, self._labels(detections))
        rules = setting.rules
        varied = rules.cameras, rules.truncate, rules.repeats
        question = setting.protocol, setting.full_gallery, setting.multi_shot, *varied
        scope, truths = self._once(question, lambda: self._question(setting, protocol, image_group, hidden))
        task, options = SearchTask(queries, gallery, scope, truths), setting.rescore
        if isinstance(options, ReRanking):
            return with_k_reciprocal(task, options)
        return task if options is None else with_context_matching(task, options)

    def _detections(self, setting: Setting) -> Detections:
        similarity = setting.rules.similarity
        if setting.ground_truth_boxes:
            needed = (
                self.inputs.required(name, "ground-truth injection") for name in ("truth", "truth_embeddings")
            )
            found = self._once("ground truth", lambda: GroundTruth.as_detections(*needed))
        else:
            found = self.inputs.detections
        key = "detections", id(found), similarity
        return self._once(key, lambda: comparable_detections(found, similarity))

    def _labels(self, detections: Detections) -> DetectionLabels:
        """Of all detections, before any choice."""
        truth = self.inputs.required("truth", "protocol zheng2017")
        return self._once(("labels", id(detections)), lambda: label_detections(detections, truth))

    def _queries(self, setting: Setting, protocol: SearchProtocol) -> tuple[Queries, ImageLists | None]:
        def make() -> tuple[Queries, ImageLists | None]:
            queries, hidden = protocol.queries, None
            if setting.rules.query == "detected":
                queries = detected_queries(queries, self.inputs.detections)
            if setting.multi_shot:
                queries, hidden = pool_shots(queries)
            return comparable_queries(queries, setting.rules.similarity), hidden

        key = setting.protocol, setting.multi_shot, setting.rules.query, setting.rules.similarity
        return self._once(("queries", *key), make)

    def _question(
        self,
        setting: Setting,
        protocol: SearchProtocol,
        image_group: IntArray,
        hidden: ImageLists | None,
    ) -> tuple[Scope, QueryTruths]:
        """Which images each query ranks, and what it should find in them."""
        queries, lists, rules = protocol.queries, protocol.lists, setting.rules
        if self.recipe.protocol in EVALUATION_FIELDS["gallery_sizes"]:
            if lists is None:
                raise PersonSearchError(f"protocol {setting.protocol} has no gallery lists, which are needed")
            return listed_search(queries, lists, full_gallery=setting.full_gallery, repeats=rules.repeats)
        truth = self.inputs.required("truth", f"protocol {self.recipe.protocol}")
        if self.recipe.protocol == "drawn" and lists is not None:
            own = np.arange(len(image_group)) if rules.cameras == "all" else image_group
            return search_in_lists(queries, truth, own, lists)
        return whole_search(queries, truth, image_group, hidden, rules.cameras, rules.truncate)

    def _once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made


def _galleries(chosen: Sequence[_Chosen], image_group: IntArray) -> list[GroupedDetections]:
    """What each setting ranks, in groups of images; settings with the same detections share a pool."""
    kept: dict[int, list[IntArray]] = {}
    for each in chosen:
        kept.setdefault(id(each.detections), []).append(each.rows)
    different = {id(each.detections): each.detections for each in chosen}
    pools = {
        key: group_by_image(detections, np.unique(np.concatenate(kept[key])), image_group)
        for key, detections in different.items()
    }
    galleries = []
    for each in chosen:
        pool, is_kept = pools[id(each.detections)], np.zeros(len(each.detections), bool)
        is_kept[each.rows] = True
        galleries.append(pool.select(np.flatnonzero(is_kept[pool.row])))
    return galleries
