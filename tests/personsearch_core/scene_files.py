"""Small scenes on disk for tests: grey noise with bright rectangles where the people are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from personsearch_core.data.scenes import Scene
from personsearch_core.recipes import DetectorModel

TINY = DetectorModel(
    backbone="resnet18",
    fpn_channels=16,
    head_convolutions=1,
    image_width=96,
    image_height=64,
    norm="batch",
    initial_weights=None,
    anchor_sizes=(16, 32, 64, 128, 256),
    anchor_ratios=(2.0,),
)


def write_scenes(
    directory: Path,
    count: int,
    *,
    width: int = 120,
    height: int = 80,
    people: int = 2,
    seed: int = 0,
    source: str = "a",
) -> list[Scene]:
    """Scenes whose people are plain rectangles, one colour an identity; the last person is unknown."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    scenes = []
    for number in range(count):
        pixels = rng.integers(90, 130, size=(height, width, 3), dtype=np.uint8)
        boxes = np.empty((people, 4), np.float32)
        for person in range(people):
            x, y = rng.integers(0, width - 24), rng.integers(0, height - 44)
            boxes[person] = (x, y, x + 20, y + 40)
            pixels[y : y + 40, x : x + 20] = (250, 40 * person, 20)
        path = directory / f"{source}{number}.png"
        Image.fromarray(pixels).save(path)
        ids = [f"p{(number + person) % 4}" for person in range(people)]
        scenes.append(
            Scene(
                image_id=f"{source}{number}",
                path=str(path),
                width=width,
                height=height,
                boxes=boxes,
                ignore=np.zeros(people, bool),
                box_ids=tuple(f"{source}{number}:{person}" for person in range(people)),
                person_ids=(*ids[:-1], None) if people else (),
                source=source,
            )
        )
    return scenes
