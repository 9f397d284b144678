"""The points of a grid, and axes of one out of `--set reid.lr=1e-4,3e-4 --set reid.seed=0..4`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

from flows.errors import ConfigError

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


@dataclass(frozen=True)
class Axis:
    """One setting and its values, as text; `overrides` if a value changes fields other than `name`."""

    name: str
    values: tuple[str, ...]
    overrides: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def overrides_of(self, value: str) -> tuple[str, ...]:
        return self.overrides.get(value, (f"{self.name}={value}",))


@dataclass(frozen=True)
class Point:
    """One point of a grid: its value of each axis, and the config overrides that they imply."""

    settings: dict[str, str]
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.settings.items()) or "the config as it is"


def parse_axis(text: str) -> Axis:
    """Parse `name=value,value,...`; `0..4` counts from 0 to 4. Commas inside brackets do not separate."""
    name, separator, values = text.partition("=")
    if not separator or not name or not values:
        raise ConfigError(f"--set takes NAME=VALUE,VALUE,... such as reid.lr=1e-4,3e-4; got {text!r}")
    found = [value for part in _split(values) for value in _expand(part, name)]
    if "" in found or len(set(found)) != len(found):
        raise ConfigError(f"--set {name}: {values!r} contains an empty or a duplicate value")
    return Axis(name, tuple(found))


def grid(axes: Sequence[Axis], always: Iterable[str] = ()) -> list[Point]:
    """All combinations, the last axis varying fastest; `always` are overrides of every point."""
    names = [axis.name for axis in axes]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(
            f"--set names {', '.join(sorted(twice))} more than once: list all values in one --set"
        )
    fixed = tuple(always)
    points = []
    for values in product(*(axis.values for axis in axes)):
        overrides = [
            override
            for axis, value in zip(axes, values, strict=True)
            for override in axis.overrides_of(value)
        ]
        points.append(Point(dict(zip(names, values, strict=True)), (*fixed, *overrides)))
    return points


def _split(values: str) -> list[str]:
    parts, depth = [""], 0
    for character in values:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _expand(value: str, name: str) -> list[str]:
    match = _RANGE.fullmatch(value)
    if match is None:
        return [value]
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise ConfigError(f"--set {name}={value}: this range counts down; write {name}={last}..{first}")
    return [str(number) for number in range(first, last + 1)]
