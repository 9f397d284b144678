"""Scenes: what a camera sees, who stands where, and the picture of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from data_catalog.synthetic.people import WIDTH_OF_HEIGHT, Clothes, Colour, Pose, draw_person, draw_pose

OVERSAMPLING = 2
"""Scenes are drawn this much larger and reduced, for soft edges."""
TOO_HIDDEN = 0.3
"""Who is visible by less than this part is not annotated."""
PLACES_TRIED = 20


@dataclass(frozen=True)
class Style:
    """A domain: what differs between datasets beside the people themselves.

    `hue` is the range of clothes' hues (of 0..1); `background_hue` that of walls and floors; `clutter` the
    mean number of things that are not people; `cast` how far cameras differ in colour; `noise` is in grey
    levels; `heights` the range of people's heights as parts of the image's height.
    """

    hue: tuple[float, float] = (0.0, 1.0)
    background_hue: tuple[float, float] = (0.0, 1.0)
    background_value: tuple[float, float] = (0.45, 0.8)
    clutter: float = 5.0
    cast: float = 0.12
    noise: float = 4.0
    heights: tuple[float, float] = (0.15, 0.58)


STREET = Style()
"""The domain that is drawn when none is named."""


@dataclass(frozen=True)
class Camera:
    """A fixed view: colours of its wall and floor, where they meet, and its colour cast."""

    number: int
    wall: Colour
    floor: Colour
    horizon: float
    gains: tuple[float, float, float]
    gamma: float


@dataclass(frozen=True)
class DrawnPerson:
    """One person in a scene; `box` is x1, y1, x2, y2 in pixels and may leave the image."""

    identity: int
    box: tuple[float, float, float, float]
    pose: Pose


@dataclass(frozen=True)
class DrawnScene:
    """A picture (height, width, 3) uint8, and who stands in it, with the part of each that is visible."""

    pixels: np.ndarray
    people: tuple[DrawnPerson, ...]
    visibility: tuple[float, ...]


def make_camera(rng: np.random.Generator, number: int, style: Style) -> Camera:
    """A camera of a domain."""
    gains = 1 + rng.uniform(-style.cast, style.cast, 3)
    return Camera(
        number=number,
        wall=_tint(rng, style),
        floor=_tint(rng, style),
        horizon=float(rng.uniform(0.22, 0.36)),
        gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        gamma=float(1 + rng.uniform(-style.cast, style.cast)),
    )


def place_people(
    rng: np.random.Generator,
    identities: Sequence[int],
    size: tuple[int, int],
    style: Style,
    *,
    overlap: float,
) -> list[DrawnPerson]:
    """Places in a scene of `size` (width, height): nearer people are larger and lower.

    `overlap` is the largest part of a person's box that a nearer one's may cover; who finds no place is left
    out.
    """
    width, height = size
    placed: list[DrawnPerson] = []
    for identity in identities:
        for _ in range(PLACES_TRIED):
            tall = float(rng.uniform(*style.heights)) * height
            low, high = style.heights
            depth = (tall / height - low) / max(high - low, 1e-6)
            feet = height * (0.48 + 0.50 * depth + float(rng.uniform(-0.03, 0.03)))
            wide = tall * WIDTH_OF_HEIGHT * float(rng.uniform(0.9, 1.1))
            left = float(rng.uniform(-0.1 * wide, width - 0.9 * wide))
            box = (left, feet - tall, left + wide, feet)
            if all(_covered(box, other.box) <= overlap for other in placed):
                placed.append(DrawnPerson(identity, box, draw_pose(rng)))
                break
    return sorted(placed, key=lambda person: person.box[3])


def render(
    rng: np.random.Generator,
    camera: Camera,
    people: Sequence[DrawnPerson],
    clothes: Mapping[int, Clothes],
    size: tuple[int, int],
    style: Style,
) -> DrawnScene:
    """Draw a scene of `size` (width, height): background, clutter, people from far to near, the camera."""
    scale = OVERSAMPLING
    canvas = _background(rng, camera, (size[0] * scale, size[1] * scale))
    pen = ImageDraw.Draw(canvas)
    _draw_clutter(rng, pen, canvas.size, camera, style)
    owners = Image.new("L", canvas.size, 0)
    owner_pen = ImageDraw.Draw(owners)
    drawn: list[int] = []
    for index, person in enumerate(people, start=1):
        x1, y1, x2, y2 = person.box
        box = (x1 * scale, y1 * scale, x2 * scale, y2 * scale)
        draw_person(pen, box, clothes[person.identity], person.pose)
        draw_person(owner_pen, box, _silhouette(index), person.pose)
        drawn.append(_area_in(owners, box, index))
    left = np.bincount(np.asarray(owners).ravel(), minlength=len(people) + 1)[1:]
    visibility = tuple(float(seen / max(whole, 1)) for seen, whole in zip(left, drawn, strict=False))
    small = canvas.resize(size, Image.Resampling.BOX)
    return DrawnScene(_through_camera(rng, camera, np.asarray(small), style), tuple(people), visibility)


def _tint(rng: np.random.Generator, style: Style) -> Colour:
    hue = rng.uniform(*style.background_hue) % 1.0
    value = rng.uniform(*style.background_value)
    red, green, blue = (0.5 + 0.5 * np.cos(2 * np.pi * (hue + shift)) for shift in (0.0, 1 / 3, 2 / 3))
    return tuple(int(255 * value * (0.8 + 0.2 * channel)) for channel in (red, green, blue))  # type: ignore[return-value]


def _covered(box: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Part of the smaller of two boxes that lies in the other."""
    wide = min(box[2], other[2]) - max(box[0], other[0])
    high = min(box[3], other[3]) - max(box[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    return wide * high / min(areas)


def _background(rng: np.random.Generator, camera: Camera, size: tuple[int, int]) -> Image.Image:
    canvas = Image.new("RGB", size, camera.wall)
    pen = ImageDraw.Draw(canvas)
    width, height = size
    horizon = int(camera.horizon * height)
    pen.rectangle([0, horizon, width, height], fill=camera.floor)
    for left in range(int(rng.integers(0, width // 6)), width, width // 6):  # seams of the floor, for texture
        shade = tuple(int(0.9 * value) for value in camera.floor)
        pen.line([left, horizon, int(left + (left - width / 2) * 0.8), height], fill=shade, width=2)
    return canvas


def _draw_clutter(
    rng: np.random.Generator, pen: ImageDraw.ImageDraw, size: tuple[int, int], camera: Camera, style: Style
) -> None:
    """Doors, bins, posts and signs: upright boxes as high as people, with neither head nor legs."""
    width, height = size
    for _ in range(int(rng.poisson(style.clutter))):
        tall = height * float(rng.uniform(0.1, 0.5))
        wide = tall * float(rng.choice([0.12, 0.4, 0.45, 0.9]))
        left = float(rng.uniform(-wide / 2, width - wide / 2))
        feet = height * float(rng.uniform(camera.horizon + 0.05, 0.95))
        colour = tuple(int(value) for value in rng.integers(30, 220, 3))
        pen.rectangle([left, feet - tall, left + wide, feet], fill=colour)
        if rng.random() < 0.6:
            inner = tuple(int(value) for value in rng.integers(30, 220, 3))
            top = feet - tall * float(rng.uniform(0.5, 0.9))
            pen.rectangle([left + 0.15 * wide, top, left + 0.85 * wide, top + 0.3 * tall], fill=inner)


def _silhouette(index: int) -> Clothes:
    """Clothes that draw a person in one value of a single-channel image."""
    value: Colour = index  # type: ignore[assignment]
    return Clothes(value, value, "plain", value, value, value, value, True, False, None)


def _area_in(owners: Image.Image, box: tuple[float, ...], index: int) -> int:
    """Pixels of the person just drawn, counted as if nothing of it were outside the image."""
    crop = np.asarray(owners.crop((int(box[0]), int(box[1]), int(box[2]) + 1, int(box[3]) + 1)))
    return int((crop == index).sum())


def _through_camera(rng: np.random.Generator, camera: Camera, pixels: np.ndarray, style: Style) -> np.ndarray:
    light = float(rng.uniform(0.88, 1.12))
    seen = (pixels / 255.0) ** camera.gamma * (np.array(camera.gains) * light)
    seen = seen * 255 + rng.normal(0, style.noise, pixels.shape)
    return np.clip(seen, 0, 255).astype(np.uint8)
