"""Statistics of a snapshot: counts by split, and how sizes and numbers of people are spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.counts import by_split
from data_catalog.published import CountComparison, compare_published
from data_catalog.snapshot import Snapshot, counts_found

MOST_BARS = 14
FAR = 2.0
"""A largest value of more than this times the 99th percentile is counted, and not drawn to scale."""


@dataclass(frozen=True)
class Histogram:
    """How many values fall between each two edges, the lower one included; all bins are equally wide.

    `unit` is what the values are, `what` is counted; `above` counts what is beyond the last edge.
    """

    title: str
    unit: str
    what: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    above: int = 0
    whole: bool = False

    def labels(self) -> list[str]:
        """The values that each bar stands for."""
        pairs = zip(self.edges, self.edges[1:], strict=False)
        if not self.whole:
            return [f"{low:g} to {high:g}" for low, high in pairs]
        return [f"{low:g}" if high - low == 1 else f"{low:g} to {high - 1:g}" for low, high in pairs]

    def rows(self) -> list[tuple[str, int]]:
        """(values, count) of each bar and of what is beyond the last."""
        rows = list(zip(self.labels(), self.counts, strict=True))
        return [*rows, (f"{self.edges[-1]:g} or more", self.above)] if self.above else rows


@dataclass(frozen=True)
class Statistics:
    """Counts by split, and histograms over people who are not ignore regions."""

    name: str
    counts: dict[str, dict[str, int]]
    histograms: tuple[Histogram, ...]
    published: tuple[CountComparison, ...] = ()


def statistics(snapshot: Snapshot) -> Statistics:
    """Compute the statistics of a snapshot."""
    counts = by_split(counts_found(snapshot))
    images = snapshot.table("images", ["image_id", "camera_id"])
    people = snapshot.table(
        "boxes", ["image_id", "x1", "y1", "x2", "y2", "person_id"], filter=~pc.field("ignore")
    )
    heights = pc.subtract(people["y2"], people["y1"]).to_numpy()
    widths = pc.subtract(people["x2"], people["x1"]).to_numpy()
    people_of_images = _people_of_images(people, images) if len(people) else np.zeros(0)
    boxes_of_id, cameras_of_id = _identities(people, images)
    return Statistics(
        snapshot.name,
        counts,
        (
            *histogram("People per image", "people", "images", people_of_images, whole=True),
            *histogram("Height of a person", "height of the box, pixels", "people", heights),
            *histogram("Shape of a person", "width / height of the box", "people", widths / heights),
            *histogram("Boxes per identity", "boxes", "identities", boxes_of_id, whole=True),
            *histogram("Cameras per identity", "cameras", "identities", cameras_of_id, whole=True),
        ),
        tuple(compare_published(snapshot)),
    )


def _people_of_images(people: pa.Table, images: pa.Table) -> np.ndarray:
    """For each image, its people who are not ignore regions."""
    at = pc.index_in(people["image_id"], value_set=images["image_id"].combine_chunks())
    return np.bincount(at.to_numpy(), minlength=len(images))


def _identities(people: pa.Table, images: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """For each identity, its number of boxes; for each that a known camera saw, its number of cameras."""
    known = people.filter(pc.is_valid(people["person_id"]))
    at = pc.index_in(known["image_id"], value_set=images["image_id"].combine_chunks())
    table = pa.table({"id": known["person_id"], "camera": images["camera_id"].take(at)})
    groups = table.group_by("id").aggregate([([], "count_all"), ("camera", "count_distinct")])
    cameras = groups["camera_count_distinct"].to_numpy()
    return groups["count_all"].to_numpy(), cameras[cameras > 0]


def histogram(
    title: str, unit: str, what: str, values: np.ndarray, *, whole: bool = False
) -> list[Histogram]:
    """The histogram of values (n,), or nothing where there is none. `whole`: the values are integers."""
    if not len(values):
        return []
    low, high = float(values.min()), float(values.max())
    usual = float(np.quantile(values, 0.99))
    end = high if high <= FAR * max(usual, 1.0 if whole else 0.0) else usual
    step = _step(max(end - low, 0.0), whole=whole)
    first = np.floor(low / step)
    edges = (first + np.arange(int(np.floor(end / step) - first) + 2)) * step
    counts, _ = np.histogram(values[values < edges[-1]], bins=edges)
    above = len(values) - int(counts.sum())
    return [Histogram(title, unit, what, tuple(edges.tolist()), tuple(counts.tolist()), above, whole)]


def _step(span: float, *, whole: bool) -> float:
    """A width of 1, 2 or 5 times a power of ten that cuts the span into at most `MOST_BARS` parts."""
    minimum = max(span / MOST_BARS, 1.0 if whole or not span else 0.0)
    power = 10.0 ** np.floor(np.log10(minimum))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= minimum))
