"""Tracks: detections of one person in consecutive frames of a video, linked by place and appearance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from personsearch_core.evaluation.matching import iou

MIN_IOU = 0.2
MIN_SIMILARITY = 0.3


def link_frames(
    frames: NDArray[np.int64], boxes: NDArray[np.float32], embeddings: NDArray[np.float16]
) -> NDArray[np.int64]:
    """Tracks of the detections of one video, in the order of frames: (n,) numbers from 0.

    A detection continues the track of one in the last frame with people where the two overlap by IoU >= 0.2
    and are similar by >= 0.3 (cosine). Of several pairs the one with the largest sum of both goes first.
    """
    tracks = np.full(len(frames), -1, np.int64)
    unit = embeddings.astype(np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    starts = np.flatnonzero(np.diff(frames, prepend=-1))
    ends = np.append(starts[1:], len(frames))
    count, before = 0, slice(0, 0)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        now = slice(start, end)
        for previous, current in _pairs(boxes[before], boxes[now], unit[before] @ unit[now].T):
            tracks[start + current] = tracks[before.start + previous]
        new = np.flatnonzero(tracks[now] < 0)
        tracks[start + new] = count + np.arange(len(new))
        count, before = count + len(new), now
    return tracks


def _pairs(
    before: NDArray[np.float32], now: NDArray[np.float32], similarity: NDArray[np.float32]
) -> list[tuple[int, int]]:
    """(row of `before`, row of `now`) that belong together, each row at most once."""
    n, m = similarity.shape
    if not n or not m:
        return []
    overlap = iou(np.repeat(before, m, axis=0), np.tile(now, (n, 1))).reshape(n, m)
    rating = np.where((overlap >= MIN_IOU) & (similarity >= MIN_SIMILARITY), overlap + similarity, -np.inf)
    pairs = []
    while np.isfinite(rating).any():
        previous, current = np.unravel_index(int(rating.argmax()), rating.shape)
        pairs.append((int(previous), int(current)))
        rating[previous, :] = -np.inf
        rating[:, current] = -np.inf
    return pairs
