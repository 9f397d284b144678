"""PRW's part of `personsearch score`."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from personsearch_core.evaluation import tables
from personsearch_core.evaluation.boxes_per_image import (
    best_of_sweep,
    score_threshold_for,
    top_k_of_each_image,
)
from personsearch_core.evaluation.breakdown import by_camera_pair, by_crowdedness, by_query_height
from personsearch_core.evaluation.multi_shot import pool_shots
from personsearch_core.evaluation.prw import evaluate_prw, prw_task
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.records import Detections, GroundTruth, IntArray, Queries
from personsearch_core.evaluation.search import run_search
from personsearch_core.evaluation.task import SearchTask
from personsearch_core.evaluation.zheng2017 import (
    DetectionLabels,
    Zheng2017Result,
    evaluate_zheng2017,
    label_detections,
)


@dataclass(frozen=True, eq=False)
class PrwFiles:
    """What the four files of a PRW evaluation hold."""

    found: Detections
    people: Queries
    truth: GroundTruth
    cameras: IntArray
    query: IntArray
    """(q,) the numbers that the file gives its queries, rising."""


def read_prw(detections: Path, queries: Path, images: Path, boxes: Path) -> PrwFiles:
    image_table = tables.open_images(images, camera_id=True)
    box_table = tables.open_boxes(boxes)
    query_table = tables.open_queries(queries, person_id=True)
    names = tables.Names.of("image", image_table.column("image"))
    people = tables.Names.of("person", box_table.column("person_id"), query_table.column("person_id"))
    cameras = np.empty(len(names), np.int64)
    cameras[names.index(image_table, "image")] = image_table.integers("camera_id")
    searched = tables.queries_from(query_table, names, people)
    truth = tables.ground_truth_from(box_table, names, people)
    _warn_of_strangers(query_table, boxes, searched, truth)
    found = tables.detections_from(tables.open_detections(detections, embeddings=True), names)
    return PrwFiles(found, searched, truth, cameras, query_table.integers("query"))


def _warn_of_strangers(table: tables.Table, boxes: Path, searched: Queries, truth: GroundTruth) -> None:
    """A few queries may be of people without a box; with most of them, the ids are of two namings."""
    strangers = np.flatnonzero(~np.isin(searched.people(), truth.person))
    if 2 * len(strangers) > len(searched):
        first = int(strangers[0])
        query, name = table.column("query")[first], table.column("person_id")[first].as_py()
        warnings.warn(
            f"{table.path}: query {query}: {boxes} has no box of person_id {name!r}, nor of those of "
            f"{len(strangers)} of {len(searched)} queries: the ids of the two files do not match, and these "
            "queries count as misses",
            tables.TableWarning,
            stacklevel=2,
        )


def person_search_task(files: PrwFiles, threshold: float | None, cross_camera: bool) -> SearchTask:
    return prw_task(
        files.found,
        files.people,
        files.truth,
        files.cameras,
        cross_camera=cross_camera,
        score_threshold=threshold,
    )


def original_result(
    files: PrwFiles,
    threshold: float | None,
    kept: IntArray | None = None,
    labels: DetectionLabels | None = None,
) -> Zheng2017Result:
    return evaluate_zheng2017(
        files.found,
        files.people,
        files.truth,
        files.cameras,
        score_threshold=threshold,
        keep=kept,
        labels=labels,
    )


def swept(
    files: PrwFiles, budgets: tuple[int, ...], protocol: str, cross_camera: bool, per_image: bool = False
) -> dict[str, Any]:
    """Results by boxes an image, and which number of boxes has the best mAP.

    A number is that of all images on average, by a global score threshold, or with `per_image` of each.
    """
    labels = label_detections(files.found, files.truth) if protocol == "zheng2017" else None

    def evaluate(budget: float) -> SearchResult | Zheng2017Result:
        if per_image:
            kept, threshold = top_k_of_each_image(files.found, int(budget)), None
        else:
            kept, threshold = None, score_threshold_for(files.found.scores, len(files.cameras), budget)
        if labels is not None:
            return original_result(files, threshold, kept, labels)
        shown = files if kept is None else replace(files, found=files.found.select(kept))
        return run_search(person_search_task(shown, threshold, cross_camera), threshold)

    best, results = best_of_sweep(evaluate, budgets, key=lambda result: result.mean_ap)
    by_budget: dict[str, dict[str, float | None]] = {
        f"{budget:g}": {"score_threshold": result.score_threshold, **result.metrics()}
        for budget, result in results.items()
    }
    return {"best_boxes_per_image": best, "boxes_per_image": by_budget}


def multi_shot_result(files: PrwFiles, threshold: float | None, cross_camera: bool) -> SearchResult:
    """Every query replaced by the mean of all queries of its person."""
    pooled, hidden = pool_shots(files.people)
    return evaluate_prw(
        files.found,
        pooled,
        files.truth,
        files.cameras,
        cross_camera=cross_camera,
        score_threshold=threshold,
        also_hidden=hidden,
    )


def prw_parts(files: PrwFiles, result: SearchResult, threshold: float | None) -> dict[str, Any]:
    """Means by box height, crowdedness and camera pair."""
    in_image = np.bincount(files.truth.image[~files.truth.ignore], minlength=len(files.cameras))
    pairs = by_camera_pair(files.found, files.people, files.truth, files.cameras, score_threshold=threshold)
    return parts_of(result, files.people, in_image) | {"by_camera_pair": [asdict(part) for part in pairs]}


def parts_of(result: SearchResult, queries: Queries, people_in_image: IntArray) -> dict[str, Any]:
    """Means by box height and crowdedness."""
    return {
        "by_height": [asdict(part) for part in by_query_height(result, queries)],
        "by_crowdedness": [asdict(part) for part in by_crowdedness(result, queries, people_in_image)],
    }
