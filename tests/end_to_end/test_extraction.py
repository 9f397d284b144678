"""Dask: features of one view by one process, by two workers, and with a worker killed are the same store;
an evaluation by two workers gives the same numbers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster, Nanny

from flows.config.loading import load_config
from flows.errors import StageError
from flows.plan.views import ViewSpec
from flows.stages.evaluation import ranking
from flows.stages.extraction import (
    Extraction,
    device_of_worker,
    extract,
    extract_on_dask,
    open_writer,
    prepare,
)
from flows.stages.test_set import TestSet
from personsearch_core.evaluation.front import evaluate
from personsearch_core.evaluation.settings import settings_of
from personsearch_core.recipes import EvaluationRecipe
from storage.feature_store import finish_features, open_features
from tests.end_to_end.conftest import TinyRun


def extraction_into(target: Path, tiny_run: TinyRun) -> Extraction:
    """Enough jittered copies of the tiny view's boxes for several shards."""
    views = "features.views=[{kind: plain}, {kind: jittered, copies: 60}, {kind: mirrored}]"
    recipe = load_config(tiny_run.config, [views]).features_recipe()
    return Extraction(
        recipe=recipe,
        snapshot=str(tiny_run.outcome.path("ingest:scenes")),
        view=ViewSpec("scenes", "train", "people"),
        root=str(tiny_run.folder / "prw"),
        detector=str(tiny_run.outcome.path("detector")),
        devices=("cpu",),
        threads=1,
        target=str(target),
        attributes='{"artifact": "features/tried"}',
    )


def create(extraction: Extraction) -> range:
    ready = prepare(extraction)
    with open_writer(extraction, ready):
        return range(ready.plan.n_shards)


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


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers; one that is killed is started again."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


def test_an_extraction_resumes_at_the_shard(
    tiny_run: TinyRun, tmp_path: Path, alone: tuple[str, np.ndarray]
) -> None:
    extraction = extraction_into(tmp_path, tiny_run)
    shards = create(extraction)
    list(extract(extraction, shards[2:4]))
    list(extract(extraction, [shard for shard in shards if shard not in (2, 3)]))
    assert finish_features(tmp_path) == alone[0]


def test_a_stopped_extraction_writes_nothing_afterwards(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The stage's lock goes with its end."""
    extraction = extraction_into(tmp_path, tiny_run)
    making = extract(extraction, create(extraction))
    begun = [next(making), next(making)]
    making.close()
    writing = ("write-behind", "digest-behind", "shard-flush")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(writing)]
    with open_writer(extraction, prepare(extraction)) as writer:
        assert writer.complete_shards == tuple(begun)


@pytest.mark.slow
def test_a_killed_dask_worker_costs_time_and_not_a_row(
    tiny_run: TinyRun,
    tmp_path: Path,
    alone: tuple[str, np.ndarray],
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.stages.extraction.SHARDS_A_TASK", 1)
    extraction = extraction_into(tmp_path, tiny_run)
    shards = create(extraction)
    done = []
    for shard in extract_on_dask(extraction, shards, workers=None, address=cluster.scheduler_address):
        if not done:
            kill_the_busiest_worker(cluster)
        done.append(shard)
    assert sorted(done) == list(shards)
    assert finish_features(tmp_path) == alone[0]
    with open_features(tmp_path) as reader:
        np.testing.assert_array_equal(reader.rows(np.arange(len(reader))), alone[1])


def kill_the_busiest_worker(cluster: LocalCluster) -> None:
    def tasks(nanny: Nanny) -> int:
        return len(cluster.scheduler.workers[nanny.worker_address].processing)

    busiest = max(cluster.workers.values(), key=tasks)
    assert tasks(busiest), "a kill of an idle worker would show nothing"
    os.kill(busiest.pid, signal.SIGKILL)


def test_local_workers_share_out_the_devices_and_others_take_the_first() -> None:
    devices = ("cuda:1", "cuda:2")
    assert [device_of_worker(name, devices) for name in (0, 1, 2)] == ["cuda:1", "cuda:2", "cuda:1"]
    assert device_of_worker("tcp://10.0.0.7:1234", devices) == "cuda:1"


def test_no_scheduler_is_one_message(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.stages.dask_clients.ANSWER_SECONDS", 0.5)
    extraction = extraction_into(tmp_path, tiny_run)
    with pytest.raises(StageError, match=r"run\.dask: no scheduler answers at tcp://127\.0\.0\.1:9"):
        list(extract_on_dask(extraction, [0], workers=None, address="tcp://127.0.0.1:9"))


def test_queries_ranked_by_dask_workers_get_the_same_numbers(
    tiny_run: TinyRun, cluster: LocalCluster
) -> None:
    spec = ViewSpec("scenes", "test", "truth", protocols=("prw",))
    test = TestSet(tiny_run.outcome.path("gallery"), tiny_run.outcome.path("ingest:scenes"), spec)
    recipe = EvaluationRecipe(ground_truth_boxes=True)
    on_truth, inputs = settings_of(recipe)[1:], test.inputs(recipe)
    (here,) = evaluate(recipe, inputs, settings=on_truth).searches
    with ranking(cluster.scheduler_address, None) as map_blocks:
        (there,) = evaluate(recipe, inputs, settings=on_truth, map_blocks=map_blocks).searches
    np.testing.assert_array_equal(there.result.ap, here.result.ap)
    assert there.result.mean_ap > 0
