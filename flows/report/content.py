"""The content of the report page as plain records: `gathering` fills them, the template reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from storage.manifest import Manifest

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
    """A crop on a strip; `picture` is a data URI. `style` is query, right, wrong, or none for a miss."""

    picture: str
    width: int
    height: int
    image_id: str
    style: str
    note: str = ""
    """What a wrong match shows, or what became of a miss."""
    rank: int = 0
    similarity: float = 0.0


@dataclass(frozen=True)
class Strip:
    """A query with its best matches, and other boxes of its person, which are not among them.

    `first_right` is the rank of the first correct match, 0 for none. Of `n_truths` boxes to find `n_lower`
    were ranked lower than the matches shown, and `n_missed` were not detected; None if that is not known.
    """

    query_id: str
    image_id: str
    person_id: str
    ap: float
    first_right: int
    n_truths: int
    n_lower: int | None
    n_missed: int | None
    query: Tile
    matches: Sequence[Tile]
    misses: Sequence[Tile]


@dataclass(frozen=True)
class DrawnBox:
    """A box on a picture; `style` is a class of the style sheet: found, false, missed, unknown or ignored."""

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
class Label:
    """A box's label; `place` is its position as CSS, in percent of the picture."""

    style: str
    text: str
    place: str


@dataclass(frozen=True)
class ScenePicture:
    """An image with boxes in pixels of the original, and labels of those for which there is room."""

    name: str
    """For those who do not see it."""
    picture: str
    width: int
    height: int
    boxes: Sequence[DrawnBox]
    labels: Sequence[Label]
    caption: str


@dataclass(frozen=True)
class Facts:
    """(name, value) of what is described, with figures; `verdict` is a sentence, empty where it has none."""

    facts: Sequence[tuple[str, str]]
    figures: Sequence[Figure]
    verdict: str = ""


@dataclass(frozen=True)
class TestContent:
    """One test set: its metrics and pictures.

    `settings` and `readings` are records of the evaluation's metrics, `readings_skipped` names and reasons.
    """

    name: str
    headline: Mapping[str, Any]
    settings: Sequence[Mapping[str, Any]]
    readings: Sequence[Mapping[str, Any]]
    readings_skipped: Sequence[Mapping[str, str]]
    score_threshold: float
    warnings: Sequence[str]
    varied_boxes: str
    """What the number of boxes per image, varied, says beside the headline; empty if it was not varied."""
    figures: Sequence[Figure]
    detection: Facts
    """How well people are detected, at the evaluation's score threshold."""
    scenes: Sequence[ScenePicture]
    strips: Sequence[Strip]


@dataclass(frozen=True)
class StageOrigin:
    """An artifact behind the page, with its non-default recipe fields as (name, value).

    `start` is in seconds on a time axis where stages follow one another: a bar of the waterfall begins there.
    """

    label: str
    manifest: Manifest
    departures: Sequence[tuple[str, str]]
    start: float


@dataclass(frozen=True)
class Origin:
    """When, where and from what everything was built: all that may differ between two equal results."""

    stages: Sequence[StageOrigin]
    gone: Sequence[str]
    """Artifacts that are no longer in the store, as `kind/key`."""
    machine: Sequence[tuple[str, str]]
    config: str
    """The config file and its overrides; empty where that is not known."""
    evaluated: str
    """When the newest evaluation was built."""
    pinned: Sequence[tuple[str, str]] = ()
    """Pinned parts of the model: since when, trained on what, and its growth since."""
    promotion: str = ""
    """Whether a tag goes to this model, and why; empty if the config promotes none."""

    @property
    def total_seconds(self) -> float:
        return sum(each.manifest.seconds for each in self.stages)


@dataclass(frozen=True)
class ReportContent:
    """Everything on the page."""

    title: str
    lead: str
    """In plain words: what was trained on what and tested on what."""
    tests: Sequence[TestContent]
    datasets: Sequence[tuple[str, str, Mapping[str, int]]]
    """A dataset, one of its splits (empty for the whole dataset), and its counts."""
    curves: Mapping[str, Sequence[Figure]] = field(default_factory=dict)
    """Training curves by stage."""
    features: Mapping[str, Facts] = field(default_factory=dict)
    """By dataset, if there are several; '' for the only one."""
    origin: Origin | None = None
