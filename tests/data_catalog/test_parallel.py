"""Many chunks on processes and on clusters, whose workers may die or come later."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data_catalog import parallel
from data_catalog.errors import CatalogError
from data_catalog.parallel import map_chunks

CHUNKS = list(range(12))


def killed_at(mark: Path, fatal: int, chunk: int) -> Iterator[int]:
    """Ends its process at a chunk: once if `mark` is a folder, else each time."""
    if chunk == fatal and not (mark / "killed").exists():
        if mark.is_dir():
            (mark / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    yield chunk
    yield -chunk


@pytest.fixture(autouse=True)
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes for few chunks."""
    monkeypatch.setattr(parallel, "CHUNKS_IN_PROCESS", 1)
    monkeypatch.setattr(parallel, "cores", lambda: 2)


def test_a_killed_worker_costs_its_chunks_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = list(map_chunks(partial(killed_at, tmp_path, 5), CHUNKS))
    assert found == [(i, part) for i in CHUNKS for part in (i, -i)]
    assert "was killed" in caplog.text


def test_a_chunk_that_kills_every_worker_ends_the_ingest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "MOST_DEATHS", 1)
    with pytest.raises(CatalogError, match="were killed 2 times"):
        list(map_chunks(partial(killed_at, tmp_path / "none", 0), CHUNKS))


def echo(chunk: int) -> Iterator[int]:
    yield chunk


def test_the_window_grows_with_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    submitted: list[int] = []
    submit = parallel._Cluster.submit

    def watched(self: parallel._Cluster, read: Any, chunk: int) -> Any:
        submitted.append(chunk)
        return submit(self, read, chunk)

    monkeypatch.setattr(parallel._Cluster, "submit", watched)
    monkeypatch.setattr(parallel, "WINDOW", 1)
    ahead: list[int] = []
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        for index, _ in map_chunks(echo, CHUNKS, cluster.scheduler_address):
            ahead.append(len(submitted) - index)
            if index == 1:
                cluster.scale(3)
                cluster.wait_for_workers(3, timeout=20)
    assert ahead[:2] == [1, 1] and ahead[3:9] == [3] * 6


def test_long_chunks_are_read_here_as_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def endless(chunk: int) -> Iterator[int]:
        for part in range(1_000_000):
            made.append(part)
            yield part

    found = map_chunks(endless, CHUNKS, is_long=lambda chunk: True)
    assert next(found) == (0, 0) and len(made) == 1


def test_long_chunks_keep_their_turn() -> None:
    found = list(map_chunks(here_and_there, CHUNKS, is_long=lambda chunk: chunk % 5 == 0))
    assert [(index, chunk) for index, (chunk, _) in found] == [(i, i) for i in CHUNKS]
    assert [chunk for _, (chunk, process) in found if process == os.getpid()] == [0, 5, 10]


def here_and_there(chunk: int) -> Iterator[tuple[int, int]]:
    yield chunk, os.getpid()


@pytest.mark.parametrize(
    ("count", "number", "expected"), [(47, 2, False), (47, 8, True), (70, 2, True), (99, 1, False)]
)
def test_processes_start_where_they_save_more_than_they_cost(
    monkeypatch: pytest.MonkeyPatch, count: int, number: int, expected: bool
) -> None:
    class Started(Exception):
        pass

    def start() -> None:
        raise Started

    monkeypatch.setattr(parallel, "CHUNKS_IN_PROCESS", 32)
    monkeypatch.setattr(parallel, "cores", lambda: number)
    monkeypatch.setattr(parallel, "_Processes", start)
    chunks = list(range(count))
    if expected:
        with pytest.raises(Started):
            next(map_chunks(echo, chunks))
    else:
        assert next(map_chunks(echo, chunks)) == (0, 0)
