"""What each setting of an evaluation ranks; work that settings share is done once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.boxes_per_image import score_threshold_for, top_k_of_each_image
from personsearch_core.evaluation.cbgm import with_context_matching
from personsearch_core.evaluation.cuhk_sysu import listed_search
from personsearch_core.evaluation.injection import inject_ground_truth
from personsearch_core.evaluation.inputs import EvaluationInputs, SearchProtocol
from personsearch_core.evaluation.listed_prw import search_in_lists
from personsearch_core.evaluation.matching import GroupedDetections, group_by_image, keep_by_score
from personsearch_core.evaluation.multi_shot import pool_shots
from personsearch_core.evaluation.prw import whole_search
from personsearch_core.evaluation.records import Detections, IntArray, Queries
from personsearch_core.evaluation.rerank import with_k_reciprocal
from personsearch_core.evaluation.search import SearchTask
from personsearch_core.evaluation.settings import Setting
from personsearch_core.evaluation.task import ListedGallery, QueryTruths, WholeGallery
from personsearch_core.evaluation.zheng2017 import JUNK, Zheng2017Task, label_detections, zheng2017_task
from personsearch_core.identities import UNLABELLED
from personsearch_core.recipes import EVALUATION_FIELDS, EvaluationRecipe, ReRanking


@dataclass(frozen=True, eq=False)
class Chosen:
    """The rows of `detections` that a setting ranks, and its score threshold, None = any."""

    detections: Detections
    rows: IntArray
    score_threshold: float | None


def chosen_detections(inputs: EvaluationInputs, settings: Sequence[Setting]) -> list[Chosen]:
    """What each setting ranks; settings with ground-truth boxes share one object of them."""
    found, true_boxes = inputs.detections, None
    if any(setting.ground_truth_boxes for setting in settings):
        needed = (inputs.required(name, "ground-truth injection") for name in ("truth", "truth_embeddings"))
        true_boxes = inject_ground_truth(*needed)
    chosen = []
    for setting in settings:
        threshold = setting.score_threshold
        if setting.ground_truth_boxes and true_boxes is not None:
            chosen.append(Chosen(true_boxes, np.arange(len(true_boxes)), None))
        elif setting.per_image_top_k is not None:
            chosen.append(Chosen(found, top_k_of_each_image(found, setting.per_image_top_k), None))
        else:
            if setting.boxes_per_image is not None:
                threshold = score_threshold_for(found.scores, inputs.n_images, setting.boxes_per_image)
            chosen.append(Chosen(found, keep_by_score(found, threshold), threshold))
    return chosen


def search_tasks(
    recipe: EvaluationRecipe, inputs: EvaluationInputs, settings: Sequence[Setting], chosen: Sequence[Chosen]
) -> list[SearchTask]:
    """One task per setting; tasks with the same detections share a pool."""
    image_group = np.arange(inputs.n_images)
    if recipe.cross_camera:
        cameras = inputs.required("cameras", "a search across cameras")
        image_group = np.unique(cameras, return_inverse=True)[1]
    questions = _questions(recipe, inputs, settings, image_group)
    tasks = []
    for setting, gallery in zip(settings, _galleries(chosen, image_group), strict=True):
        queries, scope, truths = questions[setting.question]
        task, options = SearchTask(queries, gallery, scope, truths), setting.rescore
        if isinstance(options, ReRanking):
            task = with_k_reciprocal(task, options)
        elif options is not None:
            task = with_context_matching(task, options)
        tasks.append(task)
    return tasks


def zheng2017_tasks(
    inputs: EvaluationInputs, settings: Sequence[Setting], chosen: Sequence[Chosen]
) -> list[Zheng2017Task]:
    """One task per setting, by PRW's original protocol. Detections are labelled before any choice.

    Tasks with the same detections share a pool, without junk and unlabelled people.
    """
    truth, cameras = (inputs.required(name, "protocol zheng2017") for name in ("truth", "cameras"))
    different = {id(each.detections): each.detections for each in chosen}
    labels = {key: label_detections(detections, truth) for key, detections in different.items()}
    queries = {name: inputs.protocol(name).queries for name in {setting.protocol for setting in settings}}
    ranked = []
    for each in chosen:
        person = labels[id(each.detections)].person_id[each.rows]
        rows = each.rows[np.isin(person, (JUNK, UNLABELLED), invert=True)]
        ranked.append(replace(each, rows=rows))
    tasks = []
    for setting, each, gallery in zip(
        settings, ranked, _galleries(ranked, np.arange(inputs.n_images)), strict=True
    ):
        asked, known = queries[setting.protocol], labels[id(each.detections)]
        tasks.append(zheng2017_task(gallery, each.detections, asked, truth, cameras, known))
    return tasks


_Question = tuple[Queries, ListedGallery | WholeGallery, QueryTruths]


def _questions(
    recipe: EvaluationRecipe, inputs: EvaluationInputs, settings: Sequence[Setting], image_group: IntArray
) -> dict[tuple[str, bool, bool], _Question]:
    """Whom to search, what each query ranks and should find; each protocol is read once, to save memory."""
    questions = {}
    for name in dict.fromkeys(setting.protocol for setting in settings):
        protocol = inputs.protocol(name)
        for setting in settings:
            if setting.protocol == name and setting.question not in questions:
                questions[setting.question] = _question(recipe, inputs, protocol, setting, image_group)
    return questions


def _question(
    recipe: EvaluationRecipe,
    inputs: EvaluationInputs,
    protocol: SearchProtocol,
    setting: Setting,
    image_group: IntArray,
) -> _Question:
    queries, hidden = protocol.queries, None
    if recipe.protocol in EVALUATION_FIELDS["gallery_sizes"]:
        if protocol.lists is None:
            raise PersonSearchError(f"protocol {setting.protocol} has no gallery lists, which are needed")
        return queries, *listed_search(queries, protocol.lists, full_gallery=setting.full_gallery)
    truth = inputs.required("truth", f"protocol {recipe.protocol}")
    if recipe.protocol == "drawn" and protocol.lists is not None:
        return queries, *search_in_lists(queries, truth, image_group, protocol.lists)
    if setting.multi_shot:
        queries, hidden = pool_shots(queries)
    return queries, *whole_search(queries, truth, image_group, hidden)


def _galleries(chosen: Sequence[Chosen], image_group: IntArray) -> list[GroupedDetections]:
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
