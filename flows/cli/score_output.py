"""What `personsearch score` says: numbers as JSON, seconds by step, per-query tables, warnings."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from personsearch_core.evaluation.comparison import bootstrap_interval
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.records import IntArray
from personsearch_core.evaluation.tables import TableWarning
from personsearch_core.evaluation.zheng2017 import Zheng2017Result


class Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def search_numbers(result: SearchResult) -> dict[str, Any]:
    return result.metrics() | {
        "mINP": result.mean_inp,
        "queries": len(result),
        "score_threshold": result.score_threshold,
        "ambiguous": result.ambiguous,
        "queries_without_truth": result.without_truth,
    }


def zheng_numbers(result: Zheng2017Result, bootstrap: int) -> dict[str, Any]:
    numbers: dict[str, Any] = result.metrics() | {
        "queries": len(result.ap),
        "score_threshold": result.score_threshold,
    }
    if bootstrap:
        interval = bootstrap_interval(result.ap, np.random.default_rng(0), draws=bootstrap)
        numbers["bootstrap"] = {"mAP": asdict(interval)}
    return numbers


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


def write_per_query(path: Path | None, result: SearchResult | Zheng2017Result, query: IntArray) -> None:
    """Writes a row a query under its number in the user's own file."""
    if path is not None:
        pq.write_table(pa.table(result.per_query(query)), path)
