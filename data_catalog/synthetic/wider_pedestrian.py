"""Synthetic scenes in the native layout of the WIDER Pedestrian challenge of 2018."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_catalog.synthetic.scenes import STREET, Style
from data_catalog.synthetic.splits import UNKNOWN_ID, SceneSpec, draw_splits

PEDESTRIAN, CYCLIST = 1, 2


@dataclass(frozen=True)
class WiderPedestrianSpec(SceneSpec):
    """What is drawn; test is the challenge's `val`, and who is unlabelled counts as a cyclist."""

    cameras: int = 9


def write_wider_pedestrian(
    root: Path, spec: WiderPedestrianSpec = WiderPedestrianSpec(), *, seed: int = 0, style: Style = STREET
) -> None:
    """Write annotation files, ignore files and images under `root`, which is made.

    People who are too hidden are ignore regions; an image without people keeps a line with its name alone.
    The same arguments write the same pixels.
    """
    for split, scenes in zip(("train", "val"), draw_splits(spec, style, seed), strict=True):
        folder = root / "Images" / split
        folder.mkdir(parents=True, exist_ok=True)
        people, ignored = [], []
        for drawn in scenes:
            name = f"img{drawn.number + 1:05d}.jpg"
            drawn.save(folder / name)
            people.append(_line(name, _with_class(drawn.visible)))
            if len(drawn.hidden):
                ignored.append(_line(name, drawn.hidden[:, 1:]))
        (root / f"{split}_annotations.txt").write_text("".join(people))
        (root / f"pedestrian_ignore_part_{split}.txt").write_text("".join(ignored))


def _with_class(rows: np.ndarray) -> np.ndarray:
    """Rows [id, x, y, w, h] as [class, x, y, w, h]."""
    kinds = np.where(rows[:, :1] == UNKNOWN_ID, CYCLIST, PEDESTRIAN)
    return np.concatenate([kinds, rows[:, 1:]], axis=1)


def _line(name: str, rows: Iterable[np.ndarray]) -> str:
    return " ".join([name, *(str(int(value)) for row in rows for value in row)]) + "\n"
