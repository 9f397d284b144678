"""A PRW of full size without images: 11,816 annotation files, for measuring the ingest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_catalog.synthetic.prw import choose_queries, write_lists, write_query_info
from data_catalog.synthetic.splits import UNKNOWN_ID, DrawnFrame

FRAMES = {"train": 5_704, "test": 6_112}
BOXES = {"train": 18_048, "test": 25_062}
IDENTITIES = {"train": range(1, 484), "test": range(484, 934)}
LABELLED = 0.79
QUERIES_PER_IDENTITY = 5
CAMERAS = 6


def write_prw_annotations(root: Path, *, seed: int = 0, scale: float = 1.0) -> None:
    """Write `scale` times PRW's numbers of frames and boxes (at 1: 11,816 and 43,110) under `root`, without
    frames.

    Identities, positions and sizes are drawn at random; the counts of frames and boxes are exact.
    """
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    frames: dict[str, list[DrawnFrame]] = {}
    for index, split in enumerate(FRAMES):
        rng = np.random.default_rng([seed, index])
        frames[split] = _frames(rng, split, round(FRAMES[split] * scale), round(BOXES[split] * scale))
    write_lists(root, frames["train"], frames["test"])
    rng = np.random.default_rng([seed, 2])
    write_query_info(root, choose_queries(frames["test"], QUERIES_PER_IDENTITY, rng))


def _frames(rng: np.random.Generator, split: str, count: int, boxes: int) -> list[DrawnFrame]:
    sizes = np.bincount(rng.integers(0, count, boxes), minlength=count)
    start = 0 if split == "train" else 1_000_000
    frames = []
    for number, size in enumerate(sizes):
        camera = 1 + number % CAMERAS
        name = f"c{camera}s1_{start + number * 25 + 1:07d}"
        ids = rng.choice(IDENTITIES[split], size, replace=False).astype(np.float64)
        ids[rng.random(size) >= LABELLED] = UNKNOWN_ID
        height = rng.uniform(60, 500, size)
        corners = rng.uniform((-5, 0), (1700, 550), (size, 2))
        frames.append(
            DrawnFrame(name, camera, np.column_stack([ids, corners, 0.4 * height, height]).round(4))
        )
    return frames
