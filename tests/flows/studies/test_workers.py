"""Members on a Dask cluster: tasks of its workers, a hole for one that fails, and Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster

from flows.errors import ConfigError
from flows.studies.loading import Loader
from flows.studies.members import Member
from flows.studies.schedule import StageEvent
from flows.studies.workers import run_on_workers

EMPTY = '{"images": [], "annotations": [], "categories": []}'


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a scheduler with one worker, which takes one task at a time."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        "store: store\n"
        f"datasets: {{d: {{adapter: coco, root: {dataset(tmp_path / 'd')}, allow_empty: true}}}}\n"
        "detector: {train: [{dataset: d, split: train}]}\n"
    )
    return path


def dataset(root: Path, text: str = EMPTY) -> Path:
    root.mkdir()
    (root / "train.json").write_text(text)
    return root


def member(config: Path, name: str, *overrides: str) -> Member:
    return Member(name, config, overrides, until="ingest")


def test_members_are_tasks_and_one_that_fails_is_a_hole(cluster: str, config: Path, tmp_path: Path) -> None:
    changes: list[str] = []
    members = [
        member(config, "one"),
        member(config, "the same"),
        member(
            config,
            "empty",
            f"datasets.d.root={dataset(tmp_path / 'empty', EMPTY + ' ')}",
            "datasets.d.allow_empty=false",
        ),
    ]
    outcome = run_on_workers(
        members, Loader(), config, cluster, on_change=lambda change: changes.append(str(change))
    )
    one, same, empty = outcome.members
    assert (one.failure, same.failure, outcome.made) == (None, None, {"ingest": 1})
    assert one.artifacts == same.artifacts and list(one.artifacts) == ["ingest:d"]
    assert empty.failure is not None and str(empty.failure).startswith("ingest:d: "), empty.failure
    assert [change for change in changes if change.endswith(": built")] == ["ingest:d of one: built"]
    assert len(changes) == 2 and not outcome.stopped


def test_ctrl_c_stops_members_that_have_not_begun(cluster: str, config: Path, tmp_path: Path) -> None:
    def interrupt(change: StageEvent) -> None:
        raise KeyboardInterrupt

    members = [
        member(config, name, f"datasets.d.root={dataset(tmp_path / name, EMPTY + ' ' * number)}")
        for number, name in enumerate("abc")
    ]
    stopped = run_on_workers(members, Loader(), config, cluster, on_change=interrupt)
    assert stopped.stopped and stopped.members[0].failure is None
    assert "the study was stopped" in str(stopped.members[2].failure)
    again = run_on_workers(members, Loader(), config, cluster)
    assert [each.failure for each in again.members] == [None] * 3
    assert 1 <= again.made["ingest"] <= 2


def test_what_measures_a_machine_does_not_run_elsewhere(cluster: str, config: Path) -> None:
    with pytest.raises(ConfigError, match="measures the speed of a machine"):
        run_on_workers([Member("fast", config, until="speed")], Loader(), config, cluster)
