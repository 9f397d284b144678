"""A study file: members (a config with changes), seeds, and tables whose cells are metrics of members."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from flows.config.sections import Kind
from flows.studies.drawing import Drawing
from personsearch_core.recipes import GallerySize, Recipe, Seed

Unit = Literal["percent", "ms", "s", "ratio", "number"]
"""How a value is shown: percent is 100 times the metric; the others are the metric itself."""


def _values(values: Any) -> Any:
    if not isinstance(values, list | dict) or not values:
        raise ValueError("write a list of values, or names with values")
    if isinstance(values, list) and not all(isinstance(value, str | int | float) for value in values):
        raise ValueError("give values that are lists or sections a name each, as NAME: VALUE")
    return values


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise ValueError(f"seed {twice} is listed twice")
    return seeds


class MemberGroup(Recipe):
    """One config with changes, or a grid of them."""

    config: Path | None = None
    """The config to change, from the folder of the study file on (default: the study's `config`)."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Changes of config fields by their dotted names, as after --set: `reid.lr: 3.0e-4`."""
    grid: dict[str, Annotated[Any, AfterValidator(_values)]] = Field(default_factory=dict)
    """Fields and their values, all combined: a list, or names with values. The field `reid.objective` takes
    names of presets (OIM, ...) and objectives as in `reid.phases[].objectives`, trained as long as the
    config's own phases."""
    name: str | None = None
    """Name of each member, where {FIELD} is its value in the grid (default: the group's name and its values).
    """
    until: Kind = "evaluation"
    """The last stage."""


class Column(Recipe):
    """A metric of each row's member."""

    title: str
    metric: str
    """A metric of the stage's artifact: mAP, rank1, detection_ap50, ...; `seconds` is how long it took. {row}
    is the row's name in the file."""
    member: str | None = None
    """The member, where {row} is the row's name in the file (default: the row's `member`)."""
    stage: Kind = "evaluation"
    test: str | None = None
    """The test dataset, where a member has several (default: the first)."""
    dataset: str | None = None
    """`features`: the dataset, where re-ID is trained on several (default: the first)."""
    gallery: GallerySize | None = None
    """Evaluations: the setting with this gallery size."""
    boxes_per_image: float | None = None
    """Evaluations: the setting with this many boxes per image."""
    ground_truth_boxes: bool = False
    """Evaluations: the setting with ground-truth boxes instead of detections."""
    unit: Unit = "percent"
    """percent: 100 times the metric; ms, s, ratio, number: the metric itself."""


class Row(Recipe):
    """One row of results of this project."""

    title: str | None = None
    """Default: the row's name in the file."""
    member: str | None = None
    """The member of columns that name none (default: the row's name)."""
    ours: bool = False
    """Mark the row as this project's own, with no published counterpart."""
    published: dict[str, float] = Field(default_factory=dict)
    """Published values by column, in the column's unit."""


class PublishedRow(Recipe):
    """A system that is not run here."""

    title: str | None = None
    """Default: the row's name in the file."""
    published: dict[str, float]
    """Values by column, in the column's unit."""
    note: str = ""
    """Said below the table."""


class Table(Recipe):
    """Rows of results beside published values."""

    title: str
    caption: str = ""
    source: str | None = None
    """Where the published values stand."""
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    rows: Annotated[dict[str, Row], Field(min_length=1)]
    published_rows: dict[str, PublishedRow] = Field(default_factory=dict)
    """Compared systems that are not run here."""


class StudyFile(Recipe):
    """Members, seeds and tables.

    `extends: OTHER.yaml` inherits the fields of another study; null takes a member or a table away.
    """

    title: str
    config: Path | None = None
    """The config of members that name none."""
    store: str | None = None
    """A folder, from the study file's own on, or a URL (default: the configs')."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Changes of config fields for all members, before their own."""
    seeds: Annotated[tuple[Seed, ...], AfterValidator(_distinct)] = ()
    """Every member is trained once per seed; cells show the mean and the deviation (default: the configs'
    own seed)."""
    seed_fields: Annotated[tuple[str, ...], Field(min_length=1)] = ("reid.seed",)
    """The fields that take the seed."""
    stand_ins: str = ""
    """Set where the datasets stand in for others: what is different. Captions then say that values are not
    comparable with published ones."""
    draw: Drawing | None = None
    """Synthetic datasets that are drawn before the first stage."""
    members: Annotated[dict[str, MemberGroup], Field(min_length=1)]
    tables: Annotated[dict[str, Table], Field(min_length=1)]
