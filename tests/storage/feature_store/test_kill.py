"""Writers that are killed at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from storage.feature_store import create_features, open_features, read_digests, verify_features

N_ROWS = 32 * 40
ROW_SHAPE = (16, 12, 4)

WRITER = """
import sys, time
import numpy as np
import pytest
from storage.feature_store import create_features

path, worker, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
writer = create_features(path, 1280, (16, 12, 4), rows_per_shard=32)
print("ready", flush=True)
input()
done = writer.complete_shards
for shard in range(worker, 40, 2):
    if shard not in done:
        rows = np.random.default_rng(shard).standard_normal((32, 16, 12, 4)).astype(np.float16)
        time.sleep(pause)
        writer.write(32 * shard, rows)
writer.close()
"""


def start(path: Path, worker: int, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(worker), str(pause)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


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
        writers = [start(path, worker, 0.02) for worker in (0, 1)]
        for process in writers:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in writers:  # when both stand at the line: one takes seconds longer to start
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        while shards_of(path) < before + 2:
            time.sleep(0.001)
        for process in writers:
            time.sleep(moment / 2)
            os.kill(process.pid, signal.SIGKILL)
        for process in writers:
            process.wait()
    left = create_features(path, N_ROWS, ROW_SHAPE, rows_per_shard=32)
    assert 0 < len(left.complete_shards) < 40
    assert not list(path.rglob(".shard-*.partial"))
    for process in [start(path, worker, 0) for worker in (0, 1)]:
        process.communicate("go\n")
        assert process.returncode == 0
    left.close()
    assert verify_features(path) == []
    assert read_digests(path) == read_digests(tmp_path / "whole")
    assert open_features(path).rows(np.arange(N_ROWS)).tobytes() == expected.tobytes()
    assert not (path / ".partial").exists()
