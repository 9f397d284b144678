"""People: clothes that show who they are, and how one is drawn."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import ImageDraw

Colour = tuple[int, int, int]
Pattern = Literal["plain", "bands", "stripes", "half"]

PATTERNS: tuple[Pattern, ...] = ("plain", "bands", "stripes", "half")
SKIN: tuple[Colour, ...] = ((236, 200, 172), (205, 158, 124), (150, 105, 75), (98, 66, 46))
HAIR: tuple[Colour, ...] = ((32, 26, 24), (92, 60, 34), (190, 158, 96), (140, 140, 142))
WIDTH_OF_HEIGHT = 0.40
"""A standing person's box: width / height."""


@dataclass(frozen=True)
class Clothes:
    """What makes an identity: colours and patterns of clothes, hair and skin."""

    torso: Colour
    torso_second: Colour
    pattern: Pattern
    legs: Colour
    shoes: Colour
    hair: Colour
    skin: Colour
    long_sleeves: bool
    skirt: bool
    bag: Colour | None


@dataclass(frozen=True)
class Pose:
    """How a person stands in one scene: `stride` and `swing` in -1..1, `lean` in parts of the width."""

    stride: float
    swing: float
    lean: float
    faces_left: bool


def draw_clothes(rng: np.random.Generator, *, hue: tuple[float, float] = (0.0, 1.0)) -> Clothes:
    """An identity whose torso and legs have hues from the range `hue` (of 0..1)."""
    torso, legs, second = (_cloth_colour(rng, hue) for _ in range(3))
    return Clothes(
        torso=torso,
        torso_second=second,
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        legs=legs,
        shoes=_grey(rng, 20, 90),
        hair=HAIR[rng.integers(len(HAIR))],
        skin=SKIN[rng.integers(len(SKIN))],
        long_sleeves=bool(rng.random() < 0.5),
        skirt=bool(rng.random() < 0.25),
        bag=_cloth_colour(rng, hue) if rng.random() < 0.3 else None,
    )


def draw_pose(rng: np.random.Generator) -> Pose:
    """A pose at random."""
    stride, swing = rng.uniform(-1, 1, 2)
    return Pose(float(stride), float(swing), float(rng.uniform(-0.06, 0.06)), bool(rng.random() < 0.5))


def draw_person(
    canvas: ImageDraw.ImageDraw, box: tuple[float, float, float, float], who: Clothes, pose: Pose
) -> None:
    """Draw a person who fills `box` (x1, y1, x2, y2 in the canvas's pixels)."""
    figure = _Figure(canvas, box, pose)
    _draw_legs(figure, who)
    figure.limb((-0.30, 0.20), (-0.40 - 0.08 * pose.swing, 0.36), 0.13, who.torso)
    _draw_torso(figure, who)
    sleeve_end = who.torso if who.long_sleeves else who.skin
    for side in (-1.0, 1.0):
        hand = (side * 0.38 + 0.08 * side * pose.swing, 0.52)
        elbow = (side * 0.38, 0.36)
        figure.limb((side * 0.30, 0.21), elbow, 0.14, who.torso)
        figure.limb(elbow, hand, 0.11, sleeve_end)
    if who.bag is not None:
        figure.rectangle(0.24, 0.40, 0.46, 0.56, who.bag)
    figure.rectangle(-0.08, 0.12, 0.08, 0.18, who.skin)
    figure.ellipse(-0.19, 0.0, 0.19, 0.155, who.skin)
    figure.half_disc(-0.20, -0.002, 0.20, 0.15, who.hair)


class _Figure:
    """Draws in coordinates of the person: x from -0.5 to 0.5 of the width, y from 0 (crown) to 1 (soles)."""

    def __init__(
        self, canvas: ImageDraw.ImageDraw, box: tuple[float, float, float, float], pose: Pose
    ) -> None:
        self.canvas = canvas
        self.left, self.top, right, bottom = box
        self.width, self.height = right - self.left, bottom - self.top
        self.pose = pose

    def point(self, x: float, y: float) -> tuple[float, float]:
        x = -x if self.pose.faces_left else x
        x = min(max(x + self.pose.lean * (1 - y), -0.5), 0.5)
        return self.left + (x + 0.5) * self.width, self.top + y * self.height

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self.canvas.polygon([self.point(x, y) for x, y in points], fill=colour)

    def rectangle(self, x1: float, y1: float, x2: float, y2: float, colour: Colour) -> None:
        self.polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], colour)

    def limb(
        self, start: tuple[float, float], end: tuple[float, float], thickness: float, colour: Colour
    ) -> None:
        half = thickness / 2
        self.polygon(
            [
                (start[0] - half, start[1]),
                (start[0] + half, start[1]),
                (end[0] + half, end[1]),
                (end[0] - half, end[1]),
            ],
            colour,
        )

    def ellipse(self, x1: float, y1: float, x2: float, y2: float, colour: Colour) -> None:
        self.canvas.ellipse(self._frame(x1, y1, x2, y2), fill=colour)

    def half_disc(self, x1: float, y1: float, x2: float, y2: float, colour: Colour) -> None:
        self.canvas.pieslice(self._frame(x1, y1, x2, y2), 180, 360, fill=colour)

    def _frame(self, x1: float, y1: float, x2: float, y2: float) -> list[float]:
        (a, b), (c, d) = self.point(x1, y1), self.point(x2, y2)
        return [min(a, c), min(b, d), max(a, c), max(b, d)]


def _draw_legs(figure: _Figure, who: Clothes) -> None:
    reach = 0.22 * figure.pose.stride
    for side, step in ((-1.0, reach), (1.0, -reach)):
        hip, foot = (side * 0.13, 0.50), (side * 0.15 + step, 0.95)
        figure.limb(hip, foot, 0.23, who.skin if who.skirt else who.legs)
        figure.rectangle(foot[0] - 0.13, 0.94, foot[0] + 0.15, 1.0, who.shoes)
    if who.skirt:
        figure.polygon([(-0.24, 0.48), (0.24, 0.48), (0.34, 0.74), (-0.34, 0.74)], who.legs)


def _draw_torso(figure: _Figure, who: Clothes) -> None:
    figure.polygon([(-0.34, 0.18), (0.34, 0.18), (0.28, 0.54), (-0.28, 0.54)], who.torso)
    if who.pattern == "bands":
        for top in (0.23, 0.33, 0.43):
            figure.rectangle(-0.30, top, 0.30, top + 0.05, who.torso_second)
    elif who.pattern == "stripes":
        for left in (-0.24, -0.04, 0.16):
            figure.rectangle(left, 0.18, left + 0.09, 0.54, who.torso_second)
    elif who.pattern == "half":
        figure.polygon([(-0.32, 0.36), (0.32, 0.36), (0.28, 0.54), (-0.28, 0.54)], who.torso_second)


def _cloth_colour(rng: np.random.Generator, hue: tuple[float, float]) -> Colour:
    if rng.random() < 0.2:
        return _grey(rng, 20, 240)
    red, green, blue = colorsys.hsv_to_rgb(
        rng.uniform(*hue) % 1.0, rng.uniform(0.55, 1.0), rng.uniform(0.35, 0.95)
    )
    return int(red * 255), int(green * 255), int(blue * 255)


def _grey(rng: np.random.Generator, low: int, high: int) -> Colour:
    value = int(rng.integers(low, high))
    return value, value, value
