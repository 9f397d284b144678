"""Write the output of `personsearch score`: JSON, seconds by step, per-query tables, warnings."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from flows.cli.json_file import write_json
from personsearch_core.evaluation.boxes_per_image import best_budget
from personsearch_core.evaluation.breakdown import (
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
from personsearch_core.evaluation.zheng2017 import Zheng2017Result


class Clock:
    """Accumulates seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def figures(found: Scored) -> dict[str, Any]:
    """All metrics of a setting; `rank1` also as `top1`, the name in other software, and so on."""
    result = found.result
    of_paper = {"rank20": result.top(20)} if isinstance(result, Zheng2017Result) else {}
    return _with_top(result.metrics() | of_paper)


def standard_figures(found: Scored) -> dict[str, Any]:
    """A setting's metrics with the counts behind them."""
    result = found.result
    numbers = figures(found) | {"queries": len(result), "score_threshold": result.score_threshold}
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
            f"{k}": figures(each) | {"score_threshold": each.result.score_threshold}
            for k, each in found.items()
        },
    }


def breakdown_figures(found: Scored, inputs: EvaluationInputs) -> dict[str, Any]:
    """Means by box height and crowdedness and, if cameras are known, by camera pair.

    Crowdedness counts annotated people or, without ground truth, the detections that are ranked.
    """
    result, queries = found.result, inputs.protocol(found.setting.protocol).queries
    numbers = {"by_height": by_query_height(result, queries)}
    if inputs.truth is None:
        shown = inputs.detections.image[keep_by_score(inputs.detections, result.score_threshold)]
    else:
        shown = inputs.truth.image[~inputs.truth.ignore]
        ranked = replace(found.setting, boxes_per_image=None, score_threshold=result.score_threshold)
        numbers["by_camera_pair"] = by_camera_pair(inputs, ranked)
    in_image = np.bincount(shown, minlength=inputs.n_images)
    numbers["by_crowdedness"] = by_crowdedness(result, queries, in_image)
    return {
        name: [
            _with_top({"name": of.name, "queries": of.queries, "mAP": of.mean_ap, "rank1": of.rank1})
            for of in classes
        ]
        for name, classes in numbers.items()
    }


@contextmanager
def spoken_warnings() -> Iterator[None]:
    """Print the warnings of the table readers, one line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TableWarning)
        yield
    for warning in caught:
        typer.echo(f"warning: {warning.message}", err=True)


def write(path: Path | None, numbers: dict[str, Any], clock: Clock) -> None:
    if clock.seconds:
        numbers = numbers | {"seconds": clock.seconds}
    typer.echo(json.dumps(numbers, indent=2))
    write_json(path, numbers)


def write_per_query(path: Path | None, found: Scored, query: IntArray) -> None:
    """Write one row per query, numbered as in the user's file."""
    if path is not None:
        pq.write_table(pa.table(found.result.per_query(query)), path)


def _with_top(numbers: Mapping[str, Any]) -> dict[str, Any]:
    top = {f"top{k}": numbers[f"rank{k}"] for k in REPORTED_RANKS if f"rank{k}" in numbers}
    return {**numbers, **top}
