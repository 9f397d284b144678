"""A split of a drawn dataset: scenes with the boxes that its annotations give, whatever their format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_catalog.errors import CatalogError
from data_catalog.synthetic.people import Clothes, draw_clothes
from data_catalog.synthetic.scenes import (
    TOO_HIDDEN,
    Camera,
    DrawnPerson,
    DrawnScene,
    Style,
    make_camera,
    place_people,
    render,
)

UNKNOWN_ID = -2
JPEG_QUALITY = 90


@dataclass(frozen=True)
class SceneSpec:
    """What is drawn; `people` is the range of their number in a scene, `unlabelled` the part without
    identity, `overlap` the largest part of a person that a nearer one may cover.
    """

    train_images: int = 160
    test_images: int = 80
    width: int = 320
    height: int = 240
    train_identities: int = 80
    test_identities: int = 20
    cameras: int = 3
    people: tuple[int, int] = (3, 6)
    unlabelled: float = 0.15
    overlap: float = 0.45

    def __post_init__(self) -> None:
        positive = (self.train_images, self.test_images, self.train_identities, self.test_identities)
        if min(positive) < 1 or not 1 <= self.cameras <= 9 or self.width < 32 or self.height < 32:
            raise CatalogError(f"cannot be drawn: {self}")

    @property
    def split_identities(self) -> tuple[range, range]:
        """Identities of train and of test, counted from 1; no one is in both."""
        train = range(1, self.train_identities + 1)
        return train, range(train.stop, train.stop + self.test_identities)

    @property
    def split_numbers(self) -> tuple[range, range]:
        """Numbers of the scenes of train and of test."""
        return range(self.train_images), range(self.train_images, self.train_images + self.test_images)


@dataclass(frozen=True)
class DrawnPicture:
    """A scene's picture, (height, width, 3) uint8, and rows [id, x, y, w, h] (n, 5), 0-based, in pixels.

    `visible` are those who can be made out, `hidden` the rest; boxes may leave the picture.
    """

    number: int
    camera: int
    pixels: np.ndarray
    visible: np.ndarray
    hidden: np.ndarray

    def save(self, path: Path) -> None:
        Image.fromarray(self.pixels).save(path, quality=JPEG_QUALITY, subsampling=0)


@dataclass(frozen=True)
class DrawnFrame:
    """An image's name, its camera, and rows [id, x, y, w, h] as its annotation holds them; a negative id is
    an unknown person.
    """

    name: str
    camera: int
    rows: np.ndarray


Sighting = tuple[DrawnFrame, np.ndarray]
"""A person's box: its frame and its row."""


def sightings(frames: Iterable[DrawnFrame]) -> dict[int, list[Sighting]]:
    """Where each identity is seen."""
    seen: dict[int, list[Sighting]] = defaultdict(list)
    for frame in frames:
        for row in frame.rows:
            if row[0] >= 0:
                seen[int(row[0])].append((frame, row))
    return seen


def draw_splits(spec: SceneSpec, style: Style, seed: int) -> list[Iterator[DrawnPicture]]:
    """The scenes of train and of test, from the same cameras."""
    rng = np.random.default_rng([seed, 1])
    cameras = [make_camera(rng, number, style) for number in range(1, spec.cameras + 1)]
    parts = zip((2, 3), spec.split_identities, spec.split_numbers, strict=True)
    return [_draw_split(spec, style, cameras, ids, numbers, [seed, part]) for part, ids, numbers in parts]


def _draw_split(
    spec: SceneSpec,
    style: Style,
    cameras: Sequence[Camera],
    identities: range,
    numbers: range,
    seed: Sequence[int],
) -> Iterator[DrawnPicture]:
    """One scene for each of `numbers`, with some of `identities` in it; `seed` is the split's.

    An identity's clothes depend on the first number of the seed alone; strangers wear their own.
    """
    clothes = {
        number: draw_clothes(np.random.default_rng([seed[0], 0, number]), hue=style.hue)
        for number in identities
    }
    for number in numbers:
        rng = np.random.default_rng([*seed, number])
        camera = cameras[number % len(cameras)]
        scene, labelled = _scene(rng, spec, style, camera, clothes)
        seen = np.array(scene.visibility) >= TOO_HIDDEN
        rows = np.array([_row(person, labelled) for person in scene.people], np.float64).reshape(-1, 5)
        yield DrawnPicture(number, camera.number, scene.pixels, rows[seen], rows[~seen])


def clipped(rows: np.ndarray, spec: SceneSpec, *, minimum: int = 0) -> np.ndarray:
    """Rows [id, x, y, w, h] cut to the picture, with x and y from `minimum` on; those outside are dropped."""
    low = np.maximum(rows[:, 1:3], minimum)
    high = np.minimum(rows[:, 1:3] + rows[:, 3:5], (spec.width, spec.height))
    cut = np.concatenate([rows[:, :1], low, high - low], axis=1)
    return cut[(cut[:, 3:] > 0).all(axis=1)]


def _scene(
    rng: np.random.Generator, spec: SceneSpec, style: Style, camera: Camera, clothes: Mapping[int, Clothes]
) -> tuple[DrawnScene, set[int]]:
    """A scene, and which of its people carry a label."""
    count = int(rng.integers(spec.people[0], spec.people[1] + 1))
    known = [int(pid) for pid in rng.permutation(list(clothes))[:count]]
    labelled = {pid for pid in known if rng.random() >= spec.unlabelled}
    strangers = {-index: draw_clothes(rng, hue=style.hue) for index in range(1, count - len(labelled) + 1)}
    wardrobe = {**{pid: clothes[pid] for pid in labelled}, **strangers}
    people = place_people(
        rng,
        [int(pid) for pid in rng.permutation(list(wardrobe))],
        (spec.width, spec.height),
        style,
        overlap=spec.overlap,
    )
    return render(rng, camera, people, wardrobe, (spec.width, spec.height), style), labelled


def _row(person: DrawnPerson, labelled: set[int]) -> list[float]:
    x1, y1, x2, y2 = (round(value) for value in person.box)
    return [person.identity if person.identity in labelled else UNKNOWN_ID, x1, y1, x2 - x1, y2 - y1]
