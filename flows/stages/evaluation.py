"""`evaluation`: embeddings and a protocol -> mAP, rank-k, curves, what each query found. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.row_digests import digest_rows
from flows.config import Config, EvaluationSection
from flows.stages.base import InputRef, Made, Stage, StageContext
from flows.stages.dask_clients import dask_client
from flows.stages.gallery import UNTRAINED_EMBEDDINGS
from flows.stages.names import ingest_name
from flows.stages.settings import Setting, settings_of
from flows.views import ViewSpec
from personsearch_core.recipes import EvaluationRecipe
from storage.digests import digest_json, digest_parts

if TYPE_CHECKING:
    from flows.stages.test_set import TestSet
    from personsearch_core.evaluation.search import MapBlocks

VERSION = 2
METRICS = "metrics.json"
PER_QUERY = "per_query.parquet"
MATCHES = "matches.parquet"
CURVES = "curves.json"
MAX_RANK = 50
REPORTED = (1, 5, 10)


def stage(config: Config, suffix: str, entry: EvaluationSection) -> Stage:
    recipe = EvaluationRecipe.model_validate(entry.model_dump(exclude={"test"}))
    view = entry.test
    protocols = tuple(sorted({setting.protocol for setting in settings_of(recipe)}))
    spec = ViewSpec(view.dataset, view.split, "truth", view.min_height, protocols)
    return Stage(
        name=f"evaluation{suffix}",
        kind="evaluation",
        version=VERSION,
        recipe=recipe.model_dump(mode="json"),
        maker="flows.stages.evaluation:make",
        inputs={"gallery": InputRef(f"gallery{suffix}"), "truth": InputRef(ingest_name(view.dataset), spec)},
        options={"dask": config.run.dask, "workers": config.run.workers},
    )


def make(context: StageContext) -> Made:
    """Score every setting of the recipe; the first is the headline."""
    from flows.stages.scoring import best_boxes, headline, score, top_matches
    from flows.stages.test_set import TestSet
    from personsearch_core.evaluation.detection import evaluate_detection

    recipe = EvaluationRecipe.model_validate(context.recipe)
    gallery, spec = context.artifacts["gallery"].path, context.views["truth"]
    test = TestSet(gallery, context.artifacts["truth"].path, spec)
    settings = settings_of(recipe)
    results = []
    with ranking(context.options["dask"], context.options["workers"]) as map_blocks:
        for number, setting in enumerate(settings):
            results.append(score(test, setting, recipe, map_blocks))
            context.reached(number + 1, len(settings) + 1)
    first = results[0]
    per_query = pa.concat_tables(result.per_query_table() for result in results)
    matches = top_matches(test, settings[0], recipe)
    detection = evaluate_detection(test.detections, test.truth, len(test.image_ids), score_threshold=None)
    at_half = evaluate_detection(test.detections, test.truth, len(test.image_ids), score_threshold=0.5)
    metrics = headline(first) | {
        "detection_ap50": detection.coco_ap50,
        "detection_ap": detection.coco_ap,
        "detection_recall_at_0.5": at_half.recall,
        "detection_ap_at_0.5": at_half.ap,
        "mAP_untrained": _untrained(test, settings[0], recipe),
        "queries": len(first.ap),
        "images": len(test.image_ids),
        **best_boxes(results),
    }
    body = {"headline": metrics, "settings": [result.as_record() for result in results]}
    (context.work / METRICS).write_text(json.dumps(body, indent=1) + "\n")
    (context.work / CURVES).write_text(json.dumps([result.curves(MAX_RANK) for result in results]) + "\n")
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


@contextmanager
def ranking(address: str | None, workers: int | None) -> Iterator[MapBlocks]:
    """Where blocks of queries are ranked: on a Dask scheduler's workers, on threads, or here in turn."""
    from personsearch_core.evaluation.parallel import in_threads, on_dask
    from personsearch_core.evaluation.search import serially

    if address is not None:
        with dask_client(address, workers) as client:
            yield on_dask(client)
    else:
        yield serially if workers in (None, 1) else in_threads(workers)


def _untrained(test: TestSet, setting: Setting, recipe: EvaluationRecipe) -> float | None:
    from flows.stages.scoring import score
    from flows.stages.test_set import TestSet

    if not (test.gallery / UNTRAINED_EMBEDDINGS).is_file():
        return None
    before = TestSet(test.gallery, test.snapshot, test.spec, UNTRAINED_EMBEDDINGS)
    return score(before, setting, recipe).mean_ap
