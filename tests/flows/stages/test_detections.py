"""A block of detections is marked as done only when it is on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.stages import detections
from personsearch_core.data.scenes import Scene
from personsearch_core.pooling import SceneDetections


def test_a_block_is_on_the_disk_before_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []

    def flush(path: Path) -> None:
        assert path.stat().st_size and not list(tmp_path.glob("*.done"))
        flushed.append(path.name)

    monkeypatch.setattr(detections, "flush", flush)
    boxes = np.array([[0, 0, 2, 4]], np.float32)
    scene = Scene("i", "i.jpg", 8, 8, boxes, np.array([False]), ("b",), ("p",), "d", None)
    pooled = np.zeros((1, 3, 2, 2), np.float32)
    found = SceneDetections("i", boxes, np.array([0.5], np.float32), boxes, pooled, pooled)
    detections._write_block(tmp_path, 0, [scene], iter([found]), [0])
    assert flushed == ["000000.parquet", "000000.npy"] and detections._is_done(tmp_path, 0)
