"""Rows of YOLO label files, and what their classes mean."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from data_catalog.adapters.options import is_person
from data_catalog.ids import number, whole

LARGEST_FRACTION = 2.0
"""Beyond it a coordinate is not a fraction of the image, even of a person who leaves it."""
_PLACEHOLDER = re.compile(r"(label|class|category|object|id)?[ _-]?[0-9]+", re.IGNORECASE)
"""A name that only repeats the class's number."""
_KEYPOINT_FLAGS = (0.0, 1.0, 2.0)


class NotFractions(ValueError):
    """A row whose coordinates are not fractions of the image's size."""


@dataclass(frozen=True)
class YoloClasses:
    """Which classes are people, and how all of them are called; `keypoints` where rows go on with these."""

    people: frozenset[int] = frozenset({0})
    names: Mapping[int, str] = field(default_factory=dict)
    keypoints: bool = False

    def to_text(self) -> str:
        """For the parameters of a unit."""
        names = {str(kind): name for kind, name in sorted(self.names.items())}
        return json.dumps({"people": sorted(self.people), "names": names, "keypoints": self.keypoints})

    @classmethod
    def from_text(cls, text: str) -> YoloClasses:
        """What `to_text` wrote."""
        found = json.loads(text)
        names = {int(kind): name for kind, name in found["names"].items()}
        return cls(frozenset(found["people"]), names, found["keypoints"])

    def describe(self, kind: int) -> str:
        """A class by its number, and its name where it has one."""
        return f"class {kind}: {self.names[kind]}" if kind in self.names else f"class {kind}"


@dataclass(frozen=True)
class YoloLabel:
    """One row: a class and a box as fractions of the image, x1, y1, x2, y2."""

    kind: int
    box: tuple[float, float, float, float]
    has_confidence: bool = False


def read_label(parts: list[str], *, keypoints: bool = False) -> YoloLabel:
    """A row's columns: a class, then one of

    - centre, width and height;
    - the same and a confidence (a detector's output), which is not kept;
    - the same and keypoints (x, y, visibility), which are not kept;
    - the corners of a polygon, of which the box around it is taken.

    Raises:
        ValueError: for anything else; NotFractions where a coordinate is in pixels.
    """
    kind, values = whole(parts[0]), [number(part) for part in parts[1:]]
    count = len(values)
    centred = count in (4, 5) or (count > 5 and (keypoints or _are_keypoints(values[4:])))
    if not centred and (count < 6 or count % 2):
        raise ValueError("not 'class cx cy w h', nor a polygon")
    if count == 5 and _is_identity(values[0]) and all(0 <= value <= 1 for value in values[1:]):
        raise ValueError("its second column is an identity, as JDE and FairMOT write it: use the adapter jde")
    if count == 5 and not 0 <= values[4] <= 1:
        raise ValueError(f"its sixth column, {values[4]:g}, is not a confidence between 0 and 1")
    outline = values[:4] if centred else values
    if max(map(abs, outline)) > LARGEST_FRACTION:
        raise NotFractions("its coordinates are not fractions of the image's size; are they in pixels?")
    if centred:
        x, y, w, h = outline
        return YoloLabel(kind, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), has_confidence=count == 5)
    xs, ys = outline[0::2], outline[1::2]
    return YoloLabel(kind, (min(xs), min(ys), max(xs), max(ys)))


def _is_identity(value: float) -> bool:
    """Whether a column that should be a box's centre can only be a number of a person."""
    return value.is_integer() and value not in (0, 1)


def _are_keypoints(values: list[float]) -> bool:
    """Whether the columns after a box can only be x, y and visibility: a polygon has an even number."""
    return (
        len(values) % 2 == 1
        and len(values) % 3 == 0
        and all(flag in _KEYPOINT_FLAGS for flag in values[2::3])
    )


def people_of(names: Mapping[int, str]) -> frozenset[int]:
    """The classes that are called person, pedestrian or people, in any case."""
    return frozenset(kind for kind, name in names.items() if is_person(name))


def say_nothing(names: Iterable[str]) -> bool:
    """Whether all names only repeat the classes' numbers, as some exporters write them (`label_0`)."""
    return all(_PLACEHOLDER.fullmatch(name.strip()) for name in names)
