"""Synthetic scenes in the native layout of PRW v16.04.20."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_catalog.synthetic.matlab import cells, write_mat
from data_catalog.synthetic.scenes import STREET, Style
from data_catalog.synthetic.splits import (
    DrawnFrame,
    DrawnPicture,
    SceneSpec,
    Sighting,
    draw_splits,
    sightings,
)


@dataclass(frozen=True)
class PrwSpec(SceneSpec):
    """What is drawn, and how many queries each identity of test is given at most."""

    queries_per_identity: int = 2


def write_prw(root: Path, spec: PrwSpec = PrwSpec(), *, seed: int = 0, style: Style = STREET) -> None:
    """Write frames, annotations, splits and queries under `root`, which is made.

    Identities of test do not occur in train; unlabelled people have identities of neither. The same arguments
    write the same pixels.
    """
    for folder in ("frames", "annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    train, test = (_write_split(root, scenes) for scenes in draw_splits(spec, style, seed))
    write_lists(root, train, test)
    queries = choose_queries(test, spec.queries_per_identity, np.random.default_rng([seed, 4]))
    write_query_info(root, queries)


def write_lists(root: Path, train: Sequence[DrawnFrame], test: Sequence[DrawnFrame]) -> None:
    """frame_{train,test}.mat, ID_{train,test}.mat, and one .mat a frame."""
    for frame in (*train, *test):
        write_mat(root / "annotations" / f"{frame.name}.jpg.mat", "box_new", frame.rows)
    for split, key, frames in (("train", "ID_train", train), ("test", "ID_test2", test)):
        write_mat(
            root / f"frame_{split}.mat", f"img_index_{split}", cells(cells([frame.name]) for frame in frames)
        )
        ids = {int(pid) for frame in frames for pid in frame.rows[:, 0] if pid >= 0}
        write_mat(root / f"ID_{split}.mat", key, np.array([sorted(ids)], dtype=np.float64))


def choose_queries(
    frames: Sequence[DrawnFrame], per_identity: int, rng: np.random.Generator
) -> list[Sighting]:
    """For each identity that is in two frames or more, some of its boxes, of different cameras first."""
    chosen: list[Sighting] = []
    for _, boxes in sorted(sightings(frames).items()):
        if len(boxes) < 2:
            continue
        order = [boxes[i] for i in rng.permutation(len(boxes))]
        first_of_camera = {frame.camera: (frame, row) for frame, row in reversed(order)}
        firsts = list(first_of_camera.values())
        rest = [entry for entry in order if not any(entry is first for first in firsts)]
        chosen += [*firsts, *rest][:per_identity]
    return chosen


def write_query_info(root: Path, queries: Sequence[Sighting]) -> None:
    """query_info.txt with CRLF, as the original has it."""
    lines = [
        f"{int(row[0])} " + " ".join(f"{value:.4f}" for value in row[1:]) + f" {frame.name}\r\n"
        for frame, row in queries
    ]
    (root / "query_info.txt").write_bytes("".join(lines).encode())


def _write_split(root: Path, scenes: Iterable[DrawnPicture]) -> list[DrawnFrame]:
    frames = []
    for drawn in scenes:
        name = f"c{drawn.camera}s1_{drawn.number * 25 + 1:06d}"
        drawn.save(root / "frames" / f"{name}.jpg")
        frames.append(DrawnFrame(name, drawn.camera, drawn.visible))
    return frames
