from __future__ import annotations

import resource
from collections.abc import Iterator

import distributed
import numpy as np
import pytest

from benchmarks.evaluation import prw_like
from personsearch_core.evaluation.parallel import in_threads, on_dask
from personsearch_core.evaluation.prw import evaluate_prw, prw_task
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.similarities import query_blocks

MANY_IMAGES = 100_000


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    with (
        distributed.LocalCluster(2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as connected,
    ):
        yield connected


def test_workers_compute_the_same_numbers_in_a_gallery_of_100_000_images(client: distributed.Client) -> None:
    rng = np.random.default_rng(0)
    problem = prw_like(rng, MANY_IMAGES, n_detections=3 * MANY_IMAGES, n_queries=100, dimensions=16)
    assert len(query_blocks(prw_task(*problem))) > 1
    alone = evaluate_prw(*problem)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for workers in (in_threads(2), on_dask(client)):
        shared_out = evaluate_prw(*problem, map_blocks=workers)
        assert same(alone, shared_out)
    # Twice 64 MiB of similarities, the gallery once more for each run, some copies on the way.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024


def same(first: SearchResult, second: SearchResult) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in ("ap", "rank", "n_gallery")
    )
