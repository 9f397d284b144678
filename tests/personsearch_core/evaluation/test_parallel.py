from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import distributed
import numpy as np
import pytest

from benchmarks.drawn_galleries import prw_like
from benchmarks.searches import NAME, prw_inputs, search_prw
from personsearch_core.evaluation.parallel import in_threads, on_dask, query_blocks
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.rankings import tasks_of
from personsearch_core.evaluation.search import SearchTask
from personsearch_core.evaluation.settings import Setting
from personsearch_core.recipes import EvaluationRecipe

MANY_IMAGES = 100_000


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    with (
        distributed.LocalCluster(2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as connected,
    ):
        yield connected


def test_workers_compute_the_same_numbers_in_a_gallery_of_100_000_images(client: distributed.Client) -> None:
    """In bounded memory: the similarities of all queries at once would take 343 MiB."""
    rng = np.random.default_rng(0)
    problem = prw_like(rng, MANY_IMAGES, n_detections=3 * MANY_IMAGES, n_queries=300, dimensions=16)
    inputs, settings = prw_inputs(*problem), [Setting(NAME, NAME)]
    task = tasks_of(EvaluationRecipe(), inputs, settings)[0]
    assert isinstance(task, SearchTask)
    assert len(query_blocks(task.job())) > 2
    alone = search_prw(*problem)
    for workers in (in_threads(2), on_dask(client)):
        tracemalloc.start()
        shared_out = search_prw(*problem, map_blocks=workers)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert same(alone, shared_out)
        # Twice 64 MiB of similarities, the grouped gallery, some copies on the way.
        assert peak < 256 * 2**20


def same(first: SearchResult, second: SearchResult) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in ("ap", "rank", "n_gallery")
    )
