"""A block of detections is marked as done only when it is on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.stages import detected_blocks
from flows.stages.detected_blocks import TestImages, blocks_of
from personsearch_core.data.scenes import Scene
from personsearch_core.pooling.detections import SceneDetections


def test_a_block_is_on_the_disk_before_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []

    def flush(path: Path) -> None:
        assert path.stat().st_size and not list(tmp_path.glob("*.done"))
        flushed.append(path.suffix)

    monkeypatch.setattr(detected_blocks, "flush", flush)
    boxes = np.array([[0, 0, 2, 4]], np.float32)
    scene = Scene("i", "i.jpg", 8, 8, boxes, np.array([False]), ("b",), ("p",), "d", None)
    pooled = np.zeros((1, 3, 2, 2), np.float32)
    found = SceneDetections("i", boxes, np.array([0.5], np.float32), boxes, pooled, pooled)
    wanted = TestImages([scene], [boxes[:0]], ["pixels "])
    (block,) = blocks_of(wanted, [0], tmp_path)
    block.write(wanted, iter([found]))
    assert flushed == [".parquet", ".npy"] and block.is_done()


def test_a_block_is_known_by_its_images_and_their_bytes(tmp_path: Path) -> None:
    boxes = np.zeros((0, 4), np.float32)
    scenes = [Scene(name, name, 8, 8, boxes, np.zeros(0, bool), (), (), "d", None) for name in "abc"]
    wanted = TestImages(scenes, [boxes] * 3, ["1", "2", "3"])
    (first,) = blocks_of(wanted, [0, 1], tmp_path)
    changed = TestImages(scenes, [boxes] * 3, ["1", "9", "3"])
    others = [blocks_of(wanted, [0, 2], tmp_path), blocks_of(changed, [0, 1], tmp_path)]
    assert blocks_of(wanted, [0, 1], tmp_path) == [first]
    assert len({first.name, *(block.name for (block,) in others)}) == 3


def test_nothing_of_a_forgotten_person_is_described(tmp_path: Path) -> None:
    """A detection on the person goes, unless it fits somebody else better; the person's box has no row."""
    person, neighbour = [10, 10, 30, 60], [24, 10, 44, 60]
    boxes = np.array([person, neighbour], np.float32)
    scene = Scene("i", "i.jpg", 80, 80, boxes, np.array([True, False]), ("a", "b"), (None, "q"), "d", None)
    wanted = TestImages([scene], [boxes[1:]], ["pixels "], frozenset(["a"]))
    found = np.array([[11, 9, 31, 60], [12, 12, 22, 30], [23, 11, 43, 59], [50, 10, 70, 60]], np.float32)
    assert wanted.kept(0, found).tolist() == [False, False, True, True]
    assert wanted.kept(0, found[:0]).tolist() == []
    assert wanted.extra(0).tolist() == [neighbour, neighbour] and wanted.truth_ids(0) == ["b"]
    rows = np.arange(len(found) + 2, dtype=np.float32)[:, None, None, None]
    scores = np.linspace(0.9, 0.1, len(found), dtype=np.float32)
    detected = SceneDetections("i", found, scores, wanted.extra(0), rows[: len(found)], rows[len(found) :])
    (block,) = blocks_of(wanted, [0], tmp_path)
    block.write(wanted, iter([detected]))
    table = pq.read_table(block.rows)
    assert table["box_id"].to_pylist() == [None, None, None, "b"]
    assert np.load(block.pooled)[:, 0, 0, 0].tolist() == [2, 3, 4, 5]
