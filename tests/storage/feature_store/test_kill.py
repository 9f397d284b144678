"""Writers that are killed at any moment."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from storage.feature_store import create_features, open_features, verify_features
from storage.feature_store.digests import read_digests
from tests.forking import Program

N_ROWS = 32 * 40
ROW_SHAPE = (16, 12, 4)


def write_shards(path: Path, worker: int, pause: float, go: Path) -> None:
    """Write every second shard that is not there, once a file says so."""
    writer = create_features(path, N_ROWS, ROW_SHAPE, rows_per_shard=32)
    print("ready", flush=True)
    while not go.exists():
        time.sleep(0.001)
    done = writer.complete_shards
    for shard in range(worker, 40, 2):
        if shard not in done:
            rows = np.random.default_rng(shard).standard_normal((32, *ROW_SHAPE)).astype(np.float16)
            time.sleep(pause)
            writer.write(32 * shard, rows)
    writer.close()


def start_two(path: Path, pause: float) -> list[Program]:
    """Two writers, when both stand at the line: one may take longer to start."""
    number = len(list(path.parent.glob("go-*")))
    go, said = path.with_name(f"go-{number}"), [path.with_name(f"said-{number}-{each}") for each in (0, 1)]
    writers = [
        Program(write_shards, path, worker, pause, go, output=file, error=file)
        for worker, file in enumerate(said)
    ]
    while not all(file.exists() and "ready" in file.read_text() for file in said):
        assert all(writer.poll() is None for writer in writers), [file.read_text() for file in said]
        time.sleep(0.001)
    go.touch()
    return writers


def shards_of(path: Path) -> int:
    return len(list(path.glob("features/c/*/0/0/0")))


@pytest.mark.slow
def test_two_writers_killed_at_ten_moments(tmp_path: Path):
    expected = np.concatenate(
        [
            np.random.default_rng(shard).standard_normal((32, *ROW_SHAPE)).astype(np.float16)
            for shard in range(40)
        ]
    )
    with create_features(tmp_path / "whole", N_ROWS, ROW_SHAPE, rows_per_shard=32) as writer:
        writer.write(0, expected)
    path = tmp_path / "killed"
    for moment in np.random.default_rng(7).uniform(0, 0.05, 5):
        before = shards_of(path)
        writers = start_two(path, 0.02)
        while shards_of(path) < before + 2:
            time.sleep(0.001)
        for process in writers:
            time.sleep(moment / 2)
            process.kill()
        for process in writers:
            process.wait()
    left = create_features(path, N_ROWS, ROW_SHAPE, rows_per_shard=32)
    assert 0 < len(left.complete_shards) < 40
    assert not list(path.rglob(".shard-*.partial"))
    assert [process.wait() for process in start_two(path, 0)] == [0, 0]
    left.close()
    assert verify_features(path) == []
    assert read_digests(path) == read_digests(tmp_path / "whole")
    assert open_features(path).rows(np.arange(N_ROWS)).tobytes() == expected.tobytes()
    assert not (path / ".partial").exists()
