"""What the settings of an evaluation rank, with all that several of them have in common made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.boxes_per_image import score_threshold_for, top_k_of_each_image
from personsearch_core.evaluation.cbgm import with_context_matching
from personsearch_core.evaluation.cuhk_sysu import listed_search
from personsearch_core.evaluation.injection import inject_ground_truth
from personsearch_core.evaluation.inputs import EvaluationInputs, SearchProtocol
from personsearch_core.evaluation.matching import GroupedDetections, group_by_image, keep_by_score
from personsearch_core.evaluation.multi_shot import pool_shots
from personsearch_core.evaluation.parallel import Job
from personsearch_core.evaluation.prw import camera_groups, whole_search
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.records import Detections, IntArray, Queries
from personsearch_core.evaluation.rerank import with_k_reciprocal
from personsearch_core.evaluation.search import search_job, search_result
from personsearch_core.evaluation.settings import Setting
from personsearch_core.evaluation.task import ListedGallery, QueryTruths, SearchTask, WholeGallery
from personsearch_core.evaluation.zheng2017 import Zheng2017Result, Zheng2017Search, ranked_rows
from personsearch_core.recipes import EVALUATION_FIELDS, EvaluationRecipe, ReRanking

_Question = tuple[str, bool, bool]
_Selection = tuple[bool, float | None, float | None, int | None]


@dataclass(frozen=True, eq=False)
class Asked:
    """What a protocol asks: its queries, which images each ranks, and whom it should find."""

    queries: Queries
    scope: ListedGallery | WholeGallery
    truths: QueryTruths


@dataclass(frozen=True, eq=False)
class Chosen:
    """Which rows of `detections` a setting ranks, and the lowest score among them, None = any."""

    detections: Detections
    rows: IntArray
    score_threshold: float | None


@dataclass(frozen=True, eq=False)
class Work:
    """A ranking to run, and what makes a setting's result of its blocks."""

    job: Job
    finish: Callable[[list[Any]], SearchResult | Zheng2017Result]


@dataclass(frozen=True, eq=False)
class Prepared:
    """What several settings have in common, each made once."""

    recipe: EvaluationRecipe
    inputs: EvaluationInputs
    settings: Sequence[Setting]

    def task(self, setting: Setting) -> SearchTask:
        asked = self.asked(setting)
        task = SearchTask(asked.queries.embeddings, self.gallery(setting), asked.scope, asked.truths)
        options = setting.rescore
        if options is None:
            return task
        if isinstance(options, ReRanking):
            return with_k_reciprocal(task, options.k1, options.k2, options.weight, options.depth)
        return with_context_matching(task, asked.queries, options.k1, options.k2, lift=options.lift)

    def search_work(self, task: SearchTask, setting: Setting) -> Work:
        threshold = self.chosen(setting).score_threshold
        return Work(search_job(task), partial(search_result, task, score_threshold=threshold))

    def zheng2017_work(self, setting: Setting) -> Work:
        chosen, search = self.chosen(setting), self._zheng2017[setting.ground_truth_boxes, setting.protocol]
        pool = self._pools[setting.ground_truth_boxes]
        ranked = ranked_rows(search.labels, chosen.rows)
        place = np.empty(len(chosen.detections), np.int64)
        place[pool.row] = np.arange(len(pool))
        job = search.job(ranked, pool.pool, place[ranked])
        return Work(job, partial(search.result, score_threshold=chosen.score_threshold))

    def asked(self, setting: Setting) -> Asked:
        return self._asked[_question(setting)]

    def chosen(self, setting: Setting) -> Chosen:
        return self._chosen[_selection(setting)]

    def gallery(self, setting: Setting) -> GroupedDetections:
        return self._galleries[_selection(setting)]

    @cached_property
    def _asked(self) -> dict[_Question, Asked]:
        found = {}
        for name in dict.fromkeys(setting.protocol for setting in self.settings):
            protocol = self._protocol(name)
            for setting in self.settings:
                if setting.protocol == name and _question(setting) not in found:
                    found[_question(setting)] = self._ask(protocol, setting)
        return found

    def _protocol(self, name: str) -> SearchProtocol:
        try:
            return self.inputs.protocols[name]
        except KeyError:
            known = ", ".join(self.inputs.protocols) or "none"
            raise PersonSearchError(f"the inputs have no protocol {name!r}; they have: {known}") from None

    def _ask(self, protocol: SearchProtocol, setting: Setting) -> Asked:
        queries, inputs = protocol.queries, self.inputs
        if self.recipe.protocol in EVALUATION_FIELDS["gallery_sizes"]:
            if protocol.lists is None:
                raise PersonSearchError(f"protocol {setting.protocol} lists no gallery images; give `lists`")
            return Asked(queries, *listed_search(queries, protocol.lists, full_gallery=setting.full_gallery))
        hidden = None
        if setting.multi_shot:
            queries, hidden = pool_shots(queries)
        scope, truths = whole_search(
            queries,
            inputs.annotated(f"protocol {self.recipe.protocol}"),
            self._cameras,
            cross_camera=self.recipe.cross_camera,
            also_hidden=hidden,
        )
        return Asked(queries, scope, truths)

    @cached_property
    def _cameras(self) -> IntArray:
        if self.inputs.cameras is not None:
            return self.inputs.cameras
        if self.recipe.cross_camera or self.recipe.protocol == "zheng2017":
            raise PersonSearchError("a search across cameras needs the camera of each image; give `cameras`")
        return np.zeros(self.inputs.n_images, np.int64)

    @cached_property
    def _chosen(self) -> dict[_Selection, Chosen]:
        return {_selection(setting): self._choose(setting) for setting in self.settings}

    def _choose(self, setting: Setting) -> Chosen:
        if setting.ground_truth_boxes:
            boxes = self._true_detections
            return Chosen(boxes, np.arange(len(boxes)), None)
        found = self.inputs.detections
        if setting.per_image_top_k is not None:
            return Chosen(found, top_k_of_each_image(found, setting.per_image_top_k), None)
        threshold = setting.score_threshold
        if setting.boxes_per_image is not None:
            threshold = score_threshold_for(found.scores, self.inputs.n_images, setting.boxes_per_image)
        return Chosen(found, keep_by_score(found, threshold), threshold)

    @cached_property
    def _true_detections(self) -> Detections:
        truth, embeddings = self.inputs.annotated("ground-truth boxes"), self.inputs.truth_embeddings
        if embeddings is None:
            raise PersonSearchError("ground-truth boxes: give `truth_embeddings`")
        return inject_ground_truth(truth, embeddings)

    @cached_property
    def _pools(self) -> dict[bool, GroupedDetections]:
        """All detections that any setting ranks, and all ground-truth boxes where one ranks those."""
        kept: dict[bool, tuple[Detections, np.ndarray]] = {}
        for setting in self.settings:
            chosen = self.chosen(setting)
            empty = chosen.detections, np.zeros(len(chosen.detections), bool)
            kept.setdefault(setting.ground_truth_boxes, empty)[1][chosen.rows] = True
        groups = camera_groups(self._cameras) if self.recipe.cross_camera else None
        return {
            which: group_by_image(detections, np.flatnonzero(rows), self.inputs.n_images, groups)
            for which, (detections, rows) in kept.items()
        }

    @cached_property
    def _galleries(self) -> dict[_Selection, GroupedDetections]:
        galleries = {}
        for setting in self.settings:
            pool, chosen = self._pools[setting.ground_truth_boxes], self.chosen(setting)
            kept = np.zeros(len(chosen.detections), bool)
            kept[chosen.rows] = True
            galleries[_selection(setting)] = pool.select(np.flatnonzero(kept[pool.row]))
        return galleries

    @cached_property
    def _zheng2017(self) -> dict[tuple[bool, str], Zheng2017Search]:
        truth = self.inputs.annotated("protocol zheng2017")
        searches: dict[tuple[bool, str], Zheng2017Search] = {}
        for setting in self.settings:
            if (key := (setting.ground_truth_boxes, setting.protocol)) not in searches:
                detections, queries = self.chosen(setting).detections, self.asked(setting).queries
                searches[key] = Zheng2017Search(detections, queries, truth, self._cameras)
        return searches


def _question(setting: Setting) -> _Question:
    return setting.protocol, setting.full_gallery, setting.multi_shot


def _selection(setting: Setting) -> _Selection:
    return (
        setting.ground_truth_boxes,
        setting.score_threshold,
        setting.boxes_per_image,
        setting.per_image_top_k,
    )
