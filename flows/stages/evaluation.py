"""`evaluation`: embeddings and a protocol -> mAP, rank-k, curves, what each query found. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from data_catalog.row_digests import digest_rows
from data_catalog.row_tables import COORDINATES
from flows.config.models import Config
from flows.config.sections import EvaluationSection
from flows.stages.base import (
    ArtifactInput,
    InputRef,
    Inputs,
    Made,
    Maker,
    Stage,
    StageContext,
    ViewInput,
    view_input,
)
from flows.stages.dask_clients import dask_client
from flows.stages.gallery import UNTRAINED_EMBEDDINGS
from personsearch_core.evaluation.settings import settings_of
from personsearch_core.recipes import EvaluationRecipe, Recipe
from storage.digests import digest_json, digest_parts

if TYPE_CHECKING:
    from personsearch_core.evaluation.front import EvaluationResults, Scored
    from personsearch_core.evaluation.parallel import MapBlocks
    from personsearch_core.evaluation.readings import Reading, Skipped

VERSION = 2
METRICS = "metrics.json"
PER_QUERY = "per_query.parquet"
MATCHES = "matches.parquet"
CURVES = "curves.json"
MAX_RANK = 50
TOP_MATCHES = 10


class EvaluationStageInputs(Inputs):
    gallery: ArtifactInput
    truth: ViewInput


class Options(Recipe):
    dask: str | None
    """Address of a scheduler."""
    workers: int | None
    """Threads that rank, where no scheduler does."""


def stage(config: Config, suffix: str, entry: EvaluationSection) -> Stage:
    protocols = tuple(sorted({setting.protocol for setting in settings_of(entry)}))
    truth = view_input(config, entry.test, "truth", protocols)
    return Stage(
        name=f"evaluation{suffix}",
        kind="evaluation",
        version=VERSION,
        recipe=TypeAdapter(EvaluationRecipe).dump_python(entry, mode="json"),
        maker="flows.stages.evaluation:MAKER",
        inputs={"gallery": InputRef(f"gallery{suffix}"), "truth": truth},
        options=Options(dask=config.run.dask, workers=config.run.workers).model_dump(mode="json"),
    )


def make(context: StageContext[EvaluationRecipe, EvaluationStageInputs, Options]) -> Made:
    """Score every setting of the recipe; the first is the headline."""
    from flows.stages.test_set import TestSet
    from personsearch_core.evaluation.front import evaluate
    from personsearch_core.evaluation.readings import readings_of, usable_readings

    recipe, truth = context.recipe, context.inputs.truth
    gallery = context.inputs.gallery.path
    test = TestSet(gallery, truth.snapshot.path, truth.spec)
    mean_ap_untrained = None
    with ranking(context.options.dask, context.options.workers) as map_blocks:
        inputs, scored = test.inputs(recipe), settings_of(recipe)
        readings, skipped = usable_readings(readings_of(recipe), inputs)
        results = evaluate(
            recipe,
            inputs,
            settings=[*scored, *(reading.setting for reading in readings)],
            detection_at=None if recipe.ground_truth_boxes == "only" else 0.5,
            keep_best=TOP_MATCHES,
            map_blocks=map_blocks,
            progress=lambda done, total: context.reached(done, total + 1),
        )
        by_reading = results.searches[len(scored) :]
        results = replace(results, searches=results.searches[: len(scored)])
        if (gallery / UNTRAINED_EMBEDDINGS).is_file():
            before = replace(test, embeddings_file=UNTRAINED_EMBEDDINGS)
            untrained = evaluate(
                recipe,
                before.inputs(recipe),
                settings=scored[:1],
                detection_at=None,
                map_blocks=map_blocks,
            )
            mean_ap_untrained = untrained.searches[0].result.mean_ap
    ids = {name: test.query_ids(name) for name in {found.setting.protocol for found in results.searches}}
    per_query = pa.concat_tables(_per_query(found, ids) for found in results.searches)
    matches = _matches(results, ids, test.image_ids)
    metrics = _headline(results, mean_ap_untrained, len(test.image_ids))
    body: dict[str, Any] = {"headline": metrics, "settings": [_record(found) for found in results.searches]}
    if recipe.readings is not None:
        body |= _readings(readings, by_reading, skipped)
    (context.work / METRICS).write_text(json.dumps(body, indent=1) + "\n")
    curves = [_curves(found) for found in results.searches]
    (context.work / CURVES).write_text(json.dumps(curves) + "\n")
    pq.write_table(per_query, context.work / PER_QUERY)
    pq.write_table(matches, context.work / MATCHES)
    digest = digest_parts(
        {
            "metrics": digest_json(body),
            "per_query": digest_rows(per_query),
            "matches": digest_rows(matches),
        }
    )
    return Made(digest, metrics)


MAKER = Maker(EvaluationRecipe, EvaluationStageInputs, Options, make)


@contextmanager
def ranking(address: str | None, workers: int | None) -> Iterator[MapBlocks]:
    """Where blocks of queries are ranked: on a Dask scheduler's workers, on threads, or here in turn."""
    from personsearch_core.evaluation.parallel import in_threads, on_dask

    if address is not None:
        with dask_client(address, workers) as client:
            yield on_dask(client)
    else:
        yield in_threads(workers or 1)


def _readings(
    readings: Sequence[Reading], searches: Sequence[Scored], skipped: Sequence[Skipped]
) -> dict[str, Any]:
    return {
        "readings": [
            {**_record(found), "rules": reading.rules, "equal_to": reading.code}
            for reading, found in zip(readings, searches, strict=True)
        ],
        "readings_skipped": [{"name": each.name, "reason": each.reason} for each in skipped],
    }


def _headline(results: EvaluationResults, mean_ap_untrained: float | None, n_images: int) -> dict[str, Any]:
    """The first setting's figures, those of detection, and the best number of boxes per image."""
    first, detection = results.searches[0], results.detection
    detected = {}
    if detection is not None:
        detected = {
            "detection_ap50": detection.coco_ap50,
            "detection_ap": detection.coco_ap,
            "detection_recall_at_0.5": detection.recall,
            "detection_ap_at_0.5": detection.ap,
        }
    metrics: dict[str, Any] = {
        **first.result.metrics(),
        **detected,
        "mAP_untrained": mean_ap_untrained,
        "queries": len(first.result.ap),
        "images": n_images,
    }
    if (best := results.best_boxes_per_image()) is not None:
        budget, found = best
        figures = found.result.metrics()
        metrics |= {
            "best_boxes_per_image": budget,
            "best_boxes_mAP": figures["mAP"],
            "best_boxes_rank1": figures["rank1"],
        }
    return metrics


def metric_names(recipe: EvaluationRecipe, *, of_setting: bool, untrained: bool) -> list[str]:
    """What `_record` of a setting, or `_headline`, calls its metrics, known before the evaluation is made."""
    figures = ["mAP", "rank1", "rank5", "rank10"]
    if recipe.protocol != "zheng2017":
        figures.append("mINP")
    if of_setting:
        return [*figures, "score_threshold", "boxes_per_image"]
    if recipe.ground_truth_boxes != "only":
        figures += ["detection_ap50", "detection_ap", "detection_recall_at_0.5", "detection_ap_at_0.5"]
    if untrained:
        figures.append("mAP_untrained")
    if recipe.boxes_per_image:
        figures += ["best_boxes_per_image", "best_boxes_mAP", "best_boxes_rank1"]
    return [*figures, "queries", "images"]


def _record(found: Scored) -> dict[str, Any]:
    setting, interval = found.setting, found.intervals.get("mAP")
    return {
        "name": setting.name,
        "protocol": setting.protocol,
        "boxes_per_image": setting.boxes_per_image,
        "per_image_top_k": setting.per_image_top_k,
        "ground_truth_boxes": setting.ground_truth_boxes,
        "score_threshold": found.result.score_threshold,
        "mAP_interval": [interval.low, interval.high] if interval else None,
        **found.result.metrics(),
    }


def _curves(found: Scored) -> dict[str, Any]:
    """CMC and, where the protocol has one, the mean precision-recall curve, for the report."""
    from personsearch_core.evaluation.ranking import SearchResult

    curves: dict[str, Any] = {"name": found.setting.name, "cmc": found.result.cmc(MAX_RANK).tolist()}
    if isinstance(found.result, SearchResult):
        recall, precision = found.result.precision_recall()
        curves |= {"recall": recall.tolist(), "precision": precision.tolist()}
    return curves


def _per_query(found: Scored, ids: Mapping[str, pa.ChunkedArray]) -> pa.Table:
    from personsearch_core.evaluation.ranking import REPORTED_RANKS

    result = found.result
    return pa.table(
        {
            "setting": pa.array([found.setting.name] * len(result.ap)),
            "query_id": ids[found.setting.protocol],
            "ap": pa.array(result.ap, pa.float64()),
            "rank": pa.array(result.rank, pa.int32()),
            "n_truths": pa.array(result.n_truths, pa.int32()),
            **{f"hit{k}": pa.array(result.hits(k)) for k in REPORTED_RANKS},
        }
    )


def _matches(results: EvaluationResults, ids: Mapping[str, pa.ChunkedArray], image_ids: pa.Array) -> pa.Table:
    """The most similar people of each query: query_id, rank, image_id, box, similarity, is_right."""
    matches = results.matches
    assert matches is not None
    corners = {name: pa.array(matches.boxes[:, i], pa.float32()) for i, name in enumerate(COORDINATES)}
    return pa.table(
        {
            "query_id": ids[results.searches[0].setting.protocol].take(pa.array(matches.query)),
            "rank": pa.array(matches.rank, pa.int32()),
            "image_id": image_ids.take(pa.array(matches.image)),
            **corners,
            "similarity": pa.array(matches.similarity, pa.float32()),
            "is_right": pa.array(matches.is_right),
        }
    )
