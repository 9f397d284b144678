"""Images for benchmarks: their size and detail matter, their content does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from personsearch_core.data.scenes import Scene

PERSON = np.array([80.0, 200.0])
"""Width and height of every box, in pixels."""


def photograph(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Noise with the detail of photographs."""
    coarse = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def draw_scenes(folder: Path, count: int, *, width: int, height: int, people: int) -> list[Scene]:
    """JPEG files with the detail of photographs and random boxes, each with its own identity."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    scenes = []
    for number in range(count):
        path = folder / f"{number:05d}.jpg"
        image = photograph(generator, width, height)
        corners = generator.uniform(0, 1, (people, 2)) * (np.array([width, height]) - PERSON)
        if not path.exists():
            image.save(path, quality=90)
        names = tuple(f"{path.stem}-{person}" for person in range(people))
        scenes.append(
            Scene(
                image_id=path.stem,
                path=str(path),
                width=width,
                height=height,
                boxes=np.concatenate([corners, corners + PERSON], axis=1).astype(np.float32),
                ignore=np.zeros(people, bool),
                box_ids=names,
                person_ids=names,
            )
        )
    return scenes
