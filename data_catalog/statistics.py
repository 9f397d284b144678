"""Statistics of a snapshot: a table, and figures in one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.counts import COUNTED
from data_catalog.published import CountComparison, compare_published
from data_catalog.snapshot import Snapshot, counts_found

WIDTH, HEIGHT, MARGIN = 420, 200, 34
HEIGHT_EDGES = (0, 25, 50, 75, 100, 150, 200, 300, 400, 600, 1_000_000)
ASPECT_EDGES = (0.0, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8, 1.0, 1e6)
COUNT_EDGES = (0, 1, 2, 3, 4, 6, 9, 13, 21, 51, 1_000_000)


@dataclass(frozen=True)
class Histogram:
    """How many values fall between each two edges, the lower one included."""

    title: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def labels(self) -> list[str]:
        """What each bar stands for."""
        last = len(self.counts) - 1
        return [f"{self.edges[i]:g}+" if i == last else f"{self.edges[i]:g}" for i in range(len(self.counts))]


@dataclass(frozen=True)
class Statistics:
    """Counts by split, and histograms over people who are not ignore regions."""

    name: str
    counts: dict[str, dict[str, int]]
    histograms: tuple[Histogram, ...]
    published: tuple[CountComparison, ...] = ()


def statistics(snapshot: Snapshot) -> Statistics:
    """Compute the statistics of a snapshot."""
    by_name = counts_found(snapshot)
    splits = sorted({name.rpartition(".")[0] for name in by_name} - {""})
    counts = {"whole root": {name: by_name[name] for name in COUNTED}}
    counts |= {split: {name: by_name[f"{split}.{name}"] for name in COUNTED} for split in splits}
    images = snapshot.table("images", ["image_id", "camera_id"])
    people = snapshot.table(
        "boxes", ["image_id", "x1", "y1", "x2", "y2", "person_id"], filter=~pc.field("ignore")
    )
    heights = pc.subtract(people["y2"], people["y1"]).to_numpy()
    widths = pc.subtract(people["x2"], people["x1"]).to_numpy()
    boxes_of_id, cameras_of_id = _identities(people, images)
    return Statistics(
        snapshot.name,
        counts,
        (
            _histogram("People an image", _people_of_images(people, images), COUNT_EDGES),
            _histogram("Height of a box (pixels)", heights, HEIGHT_EDGES),
            _histogram("Width / height of a box", widths / heights, ASPECT_EDGES),
            _histogram("Identities by number of boxes", boxes_of_id, COUNT_EDGES[1:]),
            _histogram("Identities by number of cameras", cameras_of_id, COUNT_EDGES[1:]),
        ),
        tuple(compare_published(snapshot)),
    )


def statistics_page(found: Statistics) -> str:
    """The statistics as one HTML document, names escaped."""
    rows = "".join(
        f"<tr><th>{escape(split)}</th>{''.join(f'<td>{numbers[name]:,}</td>' for name in COUNTED)}</tr>"
        for split, numbers in found.counts.items()
    )
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in COUNTED)
    figures = "".join(f"<figure>{_bars(each)}</figure>" for each in found.histograms)
    published = "".join(f"<p>{escape(each.source)}: {escape(str(each))}</p>" for each in found.published)
    title = escape(found.name)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>'
        "body{font:14px system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse}"
        "td,th{padding:.3em .8em;text-align:right;border-bottom:1px solid #ddd}"
        "figure{display:inline-block;margin:1em 1em 0 0}</style>"
        f"<h1>{title}</h1><table><tr><th></th>{head}</tr>{rows}</table>{published}{figures}</html>\n"
    )


def _people_of_images(people: pa.Table, images: pa.Table) -> np.ndarray:
    """For each image, its people who are not ignore regions."""
    at = pc.index_in(people["image_id"], value_set=images["image_id"].combine_chunks())
    return np.bincount(at.to_numpy(), minlength=len(images))


def _identities(people: pa.Table, images: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """For each identity, its number of boxes and of cameras (0 where cameras are unknown)."""
    known = people.filter(pc.is_valid(people["person_id"]))
    at = pc.index_in(known["image_id"], value_set=images["image_id"].combine_chunks())
    table = pa.table({"id": known["person_id"], "camera": images["camera_id"].take(at)})
    groups = table.group_by("id").aggregate([([], "count_all"), ("camera", "count_distinct")])
    return groups["count_all"].to_numpy(), groups["camera_count_distinct"].to_numpy()


def _histogram(title: str, values: np.ndarray, edges: Sequence[float]) -> Histogram:
    counts, _ = np.histogram(values, bins=np.array(edges, np.float64))
    return Histogram(title, tuple(edges), tuple(counts.tolist()))


def _bars(histogram: Histogram) -> str:
    """A bar chart as SVG."""
    top = max(histogram.counts, default=0) or 1
    step = (WIDTH - 2 * MARGIN) / len(histogram.counts)
    floor = HEIGHT - MARGIN
    parts = [
        f'<svg width="{WIDTH}" height="{HEIGHT}" font-family="system-ui,sans-serif" font-size="10">',
        f'<text x="{WIDTH / 2}" y="14" text-anchor="middle" font-size="13">{escape(histogram.title)}</text>',
    ]
    for index, (label, count) in enumerate(zip(histogram.labels(), histogram.counts, strict=True)):
        left, high = MARGIN + index * step, (floor - 34) * count / top
        middle = left + step / 2
        bar = f'x="{left + 1:.1f}" y="{floor - high:.1f}" width="{step - 2:.1f}" height="{high:.1f}"'
        parts += [
            f'<rect {bar} fill="#4878a8"/>',
            f'<text x="{middle:.1f}" y="{floor - high - 3:.1f}" text-anchor="middle">{count}</text>',
            f'<text x="{middle:.1f}" y="{floor + 12}" text-anchor="middle">{escape(label)}</text>',
        ]
    return "".join([*parts, "</svg>"])
