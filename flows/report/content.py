"""The content of the report page as plain records: `gathering` fills them, the template reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the image."""


@dataclass(frozen=True)
class Figure:
    """A plot as inline SVG, with its caption."""

    title: str
    svg: Markup
    caption: str = ""


@dataclass(frozen=True)
class Tile:
    """A crop on a strip; `picture` is a data URI. `is_right` is None for the query itself."""

    picture: str
    width: int
    height: int
    image_id: str
    is_right: bool | None = None
    rank: int = 0
    similarity: float = 0.0


@dataclass(frozen=True)
class Strip:
    """A query and its best matches. `first_right` is the rank of the first correct one, 0 for none."""

    query_id: str
    person_id: str
    ap: float
    first_right: int
    n_truths: int
    query: Tile
    matches: Sequence[Tile]


@dataclass(frozen=True)
class DrawnBox:
    """A box on a scene; `style` is a class of the style sheet: detection, found, missed or ignored."""

    style: str
    box: Corners
    label: str = ""

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]


@dataclass(frozen=True)
class ScenePicture:
    """A test image with its detections and annotations; sizes in pixels of the original."""

    image_id: str
    picture: str
    width: int
    height: int
    boxes: Sequence[DrawnBox]
    n_detections: int
    n_people: int
    n_found: int


@dataclass(frozen=True)
class TestContent:
    """One test set: its metrics and pictures. `settings` are the records of the evaluation's metrics."""

    name: str
    headline: Mapping[str, Any]
    settings: Sequence[Mapping[str, Any]]
    score_threshold: float
    warnings: Sequence[str]
    figures: Sequence[Figure]
    scenes: Sequence[ScenePicture]
    strips: Sequence[Strip]


@dataclass(frozen=True)
class DatasetCounts:
    """A row of the dataset table: a split, or the whole dataset if `split` is empty."""

    dataset: str
    split: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class FeatureContent:
    """A summary of the cached features; `facts` are (name, value), `verdict` is a sentence."""

    facts: Sequence[tuple[str, str]]
    verdict: str
    figures: Sequence[Figure]


@dataclass(frozen=True)
class StageTime:
    """A bar of the waterfall: `start` and `seconds` on a time axis where stages follow one another."""

    label: str
    start: float
    seconds: float
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class StageOrigin:
    """The origin of an artifact: its key, and its non-default recipe fields as (name, value)."""

    label: str
    kind: str
    key: str
    created: str
    departures: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Origin:
    """When, where and from what everything was built: all that may differ between two equal results."""

    stages: Sequence[StageOrigin]
    times: Sequence[StageTime]
    gone: Sequence[str]
    """Artifacts that are no longer in the store, as `kind/key`."""
    machine: Sequence[tuple[str, str]]

    @property
    def total_seconds(self) -> float:
        return sum(each.seconds for each in self.times)


@dataclass(frozen=True)
class ReportContent:
    """Everything on the page."""

    title: str
    tests: Sequence[TestContent]
    datasets: Sequence[DatasetCounts]
    curves: Mapping[str, Sequence[Figure]] = field(default_factory=dict)
    """Training curves by stage."""
    features: FeatureContent | None = None
    origin: Origin | None = None
