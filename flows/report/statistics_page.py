"""The statistics of a dataset as a page: counts, sizes, and some of its images with their boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.counts import COUNTED
from data_catalog.forgotten import FORGOTTEN
from data_catalog.images import ImageFile
from data_catalog.row_tables import COORDINATES
from data_catalog.snapshot import Snapshot
from data_catalog.statistics import Histogram, Statistics
from flows.errors import StageError
from flows.pages.page import moment, render_page
from flows.report.content import DrawnBox, Figure, ScenePicture
from flows.report.page import FOLDER
from flows.report.plots import bar_plot
from flows.report.scenes import draw_scene, scenes_with_people
from flows.wording import counted
from storage.store import Artifact

EXAMPLES = 4
_BOX_COLUMNS = ("image_id", *COORDINATES, "ignore", "ignore_reason", "person_id")
_NAMES = {
    "boxes_with_id": "boxes with identity",
    "ids": "identities",
    "rejects": "rows rejected",
    "gallery": "gallery entries",
}
"""What the page calls counts that have a short name."""


def render_statistics(found: Statistics, artifact: Artifact, root: Path | None) -> str:
    """One self-contained HTML file; `root` is the folder of the images, None if it is not known."""
    snapshot = Snapshot(artifact.path)
    whole = found.counts["whole root"]
    identities = f"{whole['ids']:,} known people" if whole["ids"] else "people without identities"
    lead = (
        f"The dataset {found.name} holds {whole['boxes']:,} boxes in {whole['images']:,} images, "
        f"of {identities}."
    )
    examples, missing = _examples(snapshot, root)
    return render_page(
        FOLDER,
        "statistics.html.j2",
        title=f"Dataset {found.name}",
        lead=lead,
        facts=_facts(snapshot, artifact, root),
        columns=[_NAMES.get(name, name) for name in COUNTED],
        counts=[(split, [numbers[name] for name in COUNTED]) for split, numbers in found.counts.items()],
        published=found.published,
        histograms=[(_figure(each), each) for each in found.histograms],
        examples=examples,
        missing=missing,
    )


def _facts(snapshot: Snapshot, artifact: Artifact, root: Path | None) -> list[tuple[str, str]]:
    row = snapshot.table("datasets", ["adapter", "adapter_version", "edition", "licence"]).to_pylist()[0]
    return [
        ("snapshot", artifact.name),
        ("root", "not known on this machine" if root is None else str(root)),
        ("ingested", moment(artifact.manifest.created)),
        ("format (adapter)", f"{row['adapter']}, version {row['adapter_version']}"),
        *([("edition", row["edition"])] if row["edition"] else []),
        ("licence", row["licence"] or "not stated by the format"),
    ]


def _figure(histogram: Histogram) -> Figure:
    caption = f"{sum(histogram.counts) + histogram.above:,} {histogram.what}."
    if histogram.above:
        caption += f" Not drawn: {histogram.above:,} with {histogram.edges[-1]:g} or more."
    shift = 0.5 if histogram.whole else 0.0  # the bar of 3 stands around 3
    edges = [edge - shift for edge in histogram.edges]
    svg = bar_plot(edges, histogram.counts, histogram.unit, histogram.what, whole=histogram.whole)
    return Figure(histogram.title, svg, caption)


def _examples(snapshot: Snapshot, root: Path | None) -> tuple[list[ScenePicture], str]:
    """Some images with their boxes, or a sentence on why there are none."""
    boxes = snapshot.table("boxes", list(_BOX_COLUMNS))
    images = snapshot.table("images", ["image_id", "rel_path", "decoding", "split"])
    chosen = scenes_with_people(images, boxes, EXAMPLES).to_pylist()
    if not chosen:
        return [], "No image of this dataset shows a person."
    if root is None:
        return [], "The dataset's folder is not known on this machine: name it with --root to see examples."
    try:
        return [_example(row, boxes, root) for row in chosen], ""
    except StageError as error:
        return [], str(error)


def _example(image: dict[str, Any], boxes: pa.Table, root: Path) -> ScenePicture:
    file = ImageFile.of_row(root, image["rel_path"], image["decoding"])
    drawn, hidden = [], []
    for box in boxes.filter(pc.equal(boxes["image_id"], image["image_id"])).to_pylist():
        corners = (box["x1"], box["y1"], box["x2"], box["y2"])
        if box["ignore_reason"] == FORGOTTEN:
            hidden.append(corners)
        style = "ignored" if box["ignore"] else "unknown" if box["person_id"] is None else "found"
        label = "" if box["ignore"] else box["person_id"] or ""
        drawn.append(DrawnBox(style, corners, label))
    people = sum(each.style != "ignored" for each in drawn)
    shown = f"{counted(people, 'person', 'people')}, split {image['split']}"
    return draw_scene(file, image["image_id"], drawn, shown, hidden)
