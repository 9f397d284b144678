"""Features of one view by one process, by two Dask workers, and with a worker killed: the same store."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster

from flows.config import load_config
from flows.errors import StageError
from flows.stages.extraction import Extraction, extract, extract_on_dask, prepare, recipe_text
from flows.views import ViewSpec
from storage.feature_store import create_features, finish_features, open_features
from tests.end_to_end.conftest import TinyRun


def extraction_into(target: Path, tiny_run: TinyRun) -> Extraction:
    """Enough jittered copies of the tiny view's boxes for several shards."""
    views = "features.views=[{kind: plain}, {kind: jittered, copies: 60}, {kind: mirrored}]"
    recipe = load_config(tiny_run.config, [views]).features_recipe()
    return Extraction(
        recipe=recipe_text(recipe.model_dump(mode="json")),
        snapshot=str(tiny_run.outcome.path("ingest:scenes")),
        view=ViewSpec("scenes", "train", "people"),
        root=str(tiny_run.folder / "prw"),
        detector=str(tiny_run.outcome.path("detector")),
        device="cpu",
        threads=1,
        target=str(target),
    )


def create(extraction: Extraction) -> range:
    ready = prepare(extraction)
    plan = ready.plan
    with create_features(extraction.target, len(plan), plan.row_shape, ready.recipe.dtype):
        return range(plan.n_shards)


@pytest.fixture(scope="module")
def alone(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, np.ndarray]:
    """Digest and rows as one process makes them."""
    target = tmp_path_factory.mktemp("alone")
    extraction = extraction_into(target, tiny_run)
    shards = create(extraction)
    assert len(shards) >= 5
    assert sorted(extract(extraction, shards)) == list(shards)
    with open_features(target) as reader:
        return finish_features(target), reader.rows(np.arange(len(reader)))


def test_an_extraction_resumes_at_the_shard(
    tiny_run: TinyRun, tmp_path: Path, alone: tuple[str, np.ndarray]
) -> None:
    extraction = extraction_into(tmp_path, tiny_run)
    shards = create(extraction)
    list(extract(extraction, shards[2:4]))
    list(extract(extraction, [shard for shard in shards if shard not in (2, 3)]))
    assert finish_features(tmp_path) == alone[0]


@pytest.mark.slow
def test_a_killed_dask_worker_costs_time_and_not_a_row(
    tiny_run: TinyRun, tmp_path: Path, alone: tuple[str, np.ndarray]
) -> None:
    extraction = extraction_into(tmp_path, tiny_run)
    shards = create(extraction)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        done = []
        for shard in extract_on_dask(extraction, shards, workers=None, address=cluster.scheduler_address):
            if not done:
                os.kill(cluster.workers[0].pid, signal.SIGKILL)
            done.append(shard)
    assert sorted(done) == list(shards)
    assert finish_features(tmp_path) == alone[0]
    with open_features(tmp_path) as reader:
        np.testing.assert_array_equal(reader.rows(np.arange(len(reader))), alone[1])


def test_no_scheduler_is_one_message(tiny_run: TinyRun, tmp_path: Path) -> None:
    extraction = extraction_into(tmp_path, tiny_run)
    with pytest.raises(StageError, match=r"run\.dask: no scheduler answers at tcp://127\.0\.0\.1:9"):
        list(extract_on_dask(extraction, [0], workers=None, address="tcp://127.0.0.1:9"))
