"""The queries that moved most between two results, as pictures: what each side found for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from flows.compare.history import History
from flows.compare.results import MovedQuery, TestDifference
from flows.compare.sides import view_of
from flows.errors import StageError
from flows.plan.catalog import StoreSnapshots
from flows.plan.views import ViewSpec
from flows.report.content import Strip
from flows.report.results import EvaluationFiles
from flows.report.strips import draw_queries
from flows.report.test_pixels import TestPixels
from storage.store import Artifact, Store

RANKS = 6
"""Matches of each strip."""


@dataclass(frozen=True)
class MovedOfTest:
    """Each query of a test with a strip of each side, or why there are none."""

    dataset: str
    pictures: Sequence[tuple[MovedQuery, Strip, Strip]]
    why_not: str


def draw_moved(test: TestDifference, before: History, after: History, store: Store) -> MovedOfTest:
    """The queries of a test that moved most. Images are read from where the datasets lie today."""
    if not test.moved:
        return MovedOfTest(test.dataset, [], "Every query that both sides have kept its average precision.")
    try:
        strips = [
            _strips(history, evaluation, test.moved, store)
            for history, evaluation in ((before, test.before), (after, test.after))
        ]
    except StageError as error:
        return MovedOfTest(test.dataset, [], f"Pictures cannot be drawn: {error}")
    old, new = strips
    drawn = [each for each in test.moved if each.query_id in old.keys() & new.keys()]
    pictures = [(query, old[query.query_id], new[query.query_id]) for query in drawn]
    return MovedOfTest(test.dataset, pictures, "")


def _strips(
    history: History, evaluation: Artifact, moved: Sequence[MovedQuery], store: Store
) -> dict[str, Strip]:
    dataset, split = view_of(evaluation.manifest, "truth", store)
    root = _root(history, dataset, store)
    local = [_on_this_machine(evaluation.manifest.sources[name], store) for name in ("truth", "gallery")]
    view = ViewSpec(dataset, split or "test", "test").of(local[0])
    pixels = TestPixels(view=view, root=root, gallery=local[1])
    path = store.here(evaluation).path
    results = EvaluationFiles(path, evaluation.manifest.identity.recipe["score_threshold"])
    wanted = pa.array([query.query_id for query in moved], pa.string())
    rows = results.per_query.filter(
        pc.is_in(results.per_query["query_id"].cast(pa.string()), value_set=wanted)
    )
    return {strip.query_id: strip for strip in draw_queries(pixels, results, rows.to_pylist(), RANKS)}


def _on_this_machine(name: str, store: Store) -> Path:
    kind, _, key = name.partition("/")
    if store.peek(kind, key) is None:
        raise StageError(f"{name} is no longer in the store")
    return store.local_path(kind, key)


def _root(history: History, dataset: str, store: Store) -> Path:
    config = history.side.loaded_config(store)
    if config is not None and dataset in config.datasets:
        return config.datasets[dataset].root
    root = StoreSnapshots(store).root(dataset)
    if root is None:
        raise StageError(f"where the images of {dataset} lie is not known on this machine")
    return root
