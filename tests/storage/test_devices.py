"""A GPU has one holder, and a dead holder holds nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage.devices import holding_devices

HOLD = """
import sys, time
from storage.devices import holding_devices
with holding_devices(sys.argv[1:]):
    print("holds", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONSEARCH_DEVICE_LOCKS", str(tmp_path))


def hold(*names: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HOLD, *names], stdout=subprocess.PIPE)


def test_a_second_stage_waits_until_the_first_ends_or_dies(tmp_path: Path) -> None:
    first = hold("gpu-a", "gpu-b")
    assert first.stdout is not None and first.stdout.readline() == b"holds\n"
    second = hold("gpu-b", "gpu-c")
    other = hold("gpu-d")
    assert second.stdout is not None and other.stdout is not None
    assert other.stdout.readline() == b"holds\n"
    time.sleep(0.5)
    assert second.poll() is None
    first.kill()
    assert second.stdout.readline() == b"holds\n"
    for process in (first, second, other):
        process.kill()
        process.wait()
    with holding_devices(["gpu-a", "gpu-b", "gpu-c"]):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu-a", "gpu-b", "gpu-c", "gpu-d"]


def test_without_a_gpu_nothing_is_held(tmp_path: Path) -> None:
    with holding_devices([]):
        assert list(tmp_path.iterdir()) == []
