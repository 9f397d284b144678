"""What `personsearch score` says: numbers as JSON, seconds by step, per-query tables, warnings."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from personsearch_core.evaluation.boxes_per_image import best_budget, top_k_of_each_image
from personsearch_core.evaluation.breakdown import (
    QueryClass,
    by_camera_pair,
    by_crowdedness,
    by_query_height,
)
from personsearch_core.evaluation.front import Scored
from personsearch_core.evaluation.inputs import EvaluationInputs
from personsearch_core.evaluation.matching import keep_by_score
from personsearch_core.evaluation.ranking import REPORTED_RANKS, SearchResult
from personsearch_core.evaluation.records import IntArray
from personsearch_core.evaluation.tables import TableWarning


class Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def figures(found: Scored) -> dict[str, Any]:
    """All metrics of a setting; `top1` and the like, by which others know them, beside `rank1`."""
    return _with_top(found.metrics() | found.result.metrics())


def standard_figures(found: Scored) -> dict[str, Any]:
    """A setting's metrics with what they rest on."""
    result = found.result
    numbers = figures(found) | {"queries": len(result.ap), "score_threshold": found.score_threshold}
    if isinstance(result, SearchResult):
        numbers |= {"ambiguous": result.ambiguous, "queries_without_truth": result.without_truth}
    if found.intervals:
        numbers["bootstrap"] = _with_top({name: asdict(each) for name, each in found.intervals.items()})
    return numbers


def sweep_figures(found: Mapping[int, Scored]) -> dict[str, Any]:
    """Results by number of boxes per image, and which number has the best mAP."""
    return {
        "best_boxes_per_image": best_budget({k: each.result.mean_ap for k, each in found.items()}),
        "boxes_per_image": {
            f"{k}": {"score_threshold": each.score_threshold} | figures(each) for k, each in found.items()
        },
    }


def breakdown_figures(found: Scored, inputs: EvaluationInputs) -> dict[str, Any]:
    """Means by box height and crowdedness and, where there are cameras, by camera pair.

    A crowd is counted by annotated people or, without ground truth, by detections that are ranked.
    """
    result, setting, detections = found.result, found.setting, inputs.detections
    queries = inputs.protocols[setting.protocol].queries
    assert isinstance(result, SearchResult)
    if setting.per_image_top_k is not None:
        detections = detections.select(top_k_of_each_image(detections, setting.per_image_top_k))
    if inputs.truth is None or inputs.cameras is None:
        shown = detections.image[keep_by_score(detections, found.score_threshold)]
        pairs = {}
    else:
        shown = inputs.truth.image[~inputs.truth.ignore]
        threshold = found.score_threshold
        of_pairs = by_camera_pair(
            detections, queries, inputs.truth, inputs.cameras, score_threshold=threshold
        )
        pairs = {"by_camera_pair": _records(of_pairs)}
    in_image = np.bincount(shown, minlength=inputs.n_images)
    return {
        "by_height": _records(by_query_height(result, queries)),
        "by_crowdedness": _records(by_crowdedness(result, queries, in_image)),
        **pairs,
    }


@contextmanager
def spoken_warnings() -> Iterator[None]:
    """Prints what the tables' readers warn of, one line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TableWarning)
        yield
    for warning in caught:
        typer.echo(f"warning: {warning.message}", err=True)


def write(path: Path | None, numbers: dict[str, Any], clock: Clock) -> None:
    if clock.seconds:
        numbers = numbers | {"seconds": clock.seconds}
    text = json.dumps(numbers, indent=2)
    typer.echo(text)
    if path is not None:
        path.write_text(text + "\n")


def write_per_query(path: Path | None, found: Scored, query: IntArray) -> None:
    """Writes a row per query under its number in the user's own file."""
    if path is not None:
        pq.write_table(pa.table(found.result.per_query(query)), path)


def _records(classes: Sequence[QueryClass]) -> list[dict[str, Any]]:
    return [
        _with_top({"name": each.name, "queries": each.queries, "mAP": each.mean_ap, "rank1": each.rank1})
        for each in classes
    ]


def _with_top(numbers: Mapping[str, Any]) -> dict[str, Any]:
    top = {f"top{k}": numbers[f"rank{k}"] for k in REPORTED_RANKS if f"rank{k}" in numbers}
    return {**numbers, **top}
