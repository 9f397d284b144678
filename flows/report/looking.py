"""Pictures of a test set: scenes with boxes, and queries with their best matches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.images import ImageFile, ignores_exif
from data_catalog.snapshot import Snapshot
from data_catalog.views import View
from flows.report.content import Corners, DrawnBox, ScenePicture, Strip, Tile
from flows.report.pictures import Crops, as_data_uri, crop_people, read_scaled
from flows.report.results import Results
from flows.stages.detections import DETECTION, ROWS
from personsearch_core.evaluation.matching import iou, match_threshold

_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class TestPixels:
    """A test view, the root folder of its images, and the gallery whose detections are drawn."""

    view: View
    root: Path
    gallery: Path

    def image_of(self, image_id: str) -> ImageFile:
        rel_path, decoding = self._files[image_id]
        return ImageFile(self.root / rel_path, "ignore" if ignores_exif(decoding) else "apply")

    @cached_property
    def _files(self) -> dict[str, tuple[str, str | None]]:
        columns = (self.view.images[name].to_pylist() for name in ("image_id", "rel_path", "decoding"))
        return {image_id: (rel_path, decoding) for image_id, rel_path, decoding in zip(*columns, strict=True)}

    @cached_property
    def detections(self) -> pa.Table:
        rows = pq.read_table(self.gallery / ROWS)
        return rows.filter(pc.equal(rows["role"].cast(pa.string()), DETECTION))


def draw_scenes(test: TestPixels, count: int, score_threshold: float) -> list[ScenePicture]:
    """`count` images spread over those that show people, with detections and annotations."""
    boxes = test.view.boxes
    with_people = boxes.filter(pc.invert(boxes["ignore"]))["image_id"].unique()
    images = test.view.images.select(["image_id", "width", "height"])
    chosen = images.filter(pc.is_in(images["image_id"], value_set=with_people))
    chosen = chosen.take(spread(len(chosen), count))
    kept = test.detections.filter(pc.greater_equal(test.detections["score"], score_threshold))
    return [
        _scene(test, row, _of_image(kept, row["image_id"]), _of_image(boxes, row["image_id"]))
        for row in chosen.to_pylist()
    ]


def draw_strips(test: TestPixels, results: Results, count: int, ranks: int) -> list[Strip]:
    """The `count` hardest queries by AP, then as many spread over the rest, each with its best matches.

    Empty if nothing was detected.
    """
    if not len(results.matches):
        return []
    scored = choose_queries(results.per_query, count)
    wanted = pa.array([row["query_id"] for row in scored], pa.string())
    queries = _queries(test.view.snapshot, results.settings[0]["protocol"], wanted)
    matches = results.matches.filter(pc.is_in(results.matches["query_id"], value_set=wanted))
    matches = matches.filter(pc.less_equal(matches["rank"], ranks)).sort_by("rank").to_pylist()
    crops = _crop(test, [*(queries[row["query_id"]] for row in scored), *matches])
    return [
        Strip(
            query_id=row["query_id"],
            person_id=queries[row["query_id"]]["person_id"],
            ap=row["ap"],
            first_right=row["rank"],
            n_truths=row["n_truths"],
            query=_tile(test, queries[row["query_id"]], crops),
            matches=[_tile(test, match, crops) for match in matches if match["query_id"] == row["query_id"]],
        )
        for row in scored
    ]


def choose_queries(per_query: pa.Table, count: int) -> list[dict[str, Any]]:
    """The `count` rows with the lowest AP, hardest first, then `count` spread over the rest, by AP.

    Queries without a match in the gallery come last.
    """
    nothing_to_find = pc.equal(per_query["n_truths"], 0)
    ordered = per_query.append_column("nothing_to_find", nothing_to_find).sort_by(
        [("nothing_to_find", "ascending"), ("ap", "ascending"), ("query_id", "ascending")]
    )
    hardest, rest = ordered.slice(0, count), ordered.slice(count)
    return [*hardest.to_pylist(), *rest.take(spread(len(rest), count)).to_pylist()]


def spread(length: int, count: int) -> np.ndarray:
    """At most `count` evenly spaced positions of 0..length-1, always including the last."""
    count = min(length, count)
    return ((np.arange(count) + 1) * length // max(count, 1) - 1).astype(np.int64)


def _scene(test: TestPixels, image: dict[str, Any], detected: pa.Table, truth: pa.Table) -> ScenePicture:
    ignored = truth["ignore"].to_numpy(zero_copy_only=False)
    people, found_boxes = _boxes(truth)[~ignored], _boxes(detected)
    found = _is_found(people, found_boxes)
    scores = [f"{score:.2f}" for score in detected["score"].to_pylist()]
    boxes = [
        *_drawn(_boxes(truth)[ignored], ["ignored"] * int(ignored.sum())),
        *_drawn(found_boxes, ["detection"] * len(found_boxes), scores),
        *_drawn(
            people, ["found" if each else "missed" for each in found]
        ),  # dashed, so that the boxes below stay visible
    ]
    return ScenePicture(
        image_id=image["image_id"],
        picture=as_data_uri(read_scaled(test.image_of(image["image_id"]))),
        width=image["width"],
        height=image["height"],
        boxes=boxes,
        n_detections=len(found_boxes),
        n_people=len(people),
        n_found=int(found.sum()),
    )


def _is_found(people: np.ndarray, detected: np.ndarray) -> np.ndarray:
    """Whether each of `people` (n, 4) matches one of `detected` (m, 4), by the protocols' rule -> (n,)."""
    n, m = len(people), len(detected)
    overlaps = iou(np.repeat(people, m, axis=0), np.tile(detected, (n, 1))).reshape(n, m)
    best = overlaps.max(axis=1, initial=0.0)
    return np.asarray(np.greater_equal(best, match_threshold(people.astype(np.float64))))


def _drawn(
    boxes: np.ndarray, styles: Sequence[str], labels: Iterable[str] | None = None
) -> Iterator[DrawnBox]:
    for box, style, label in zip(boxes, styles, labels or [""] * len(boxes), strict=True):
        x1, y1, x2, y2 = (round(float(value), 1) for value in box)
        yield DrawnBox(style, (x1, y1, x2, y2), label)


def _of_image(table: pa.Table, image_id: str) -> pa.Table:
    return table.filter(pc.equal(table["image_id"], image_id))


def _boxes(table: pa.Table) -> np.ndarray:
    return np.stack([table[name].to_numpy() for name in _CORNERS], axis=1)


def _queries(snapshot: Snapshot, protocol: str, query_ids: pa.Array) -> dict[str, dict[str, Any]]:
    """The wanted queries by id; does not read the protocol's galleries, which can be huge."""
    where = (pc.field("protocol") == protocol) & pc.field("query_id").isin(query_ids)
    return {row["query_id"]: row for row in snapshot.table("queries", filter=where).to_pylist()}


def _crop(test: TestPixels, rows: Sequence[dict[str, Any]]) -> Crops:
    wanted: dict[ImageFile, list[Corners]] = {}
    for row in rows:
        boxes = wanted.setdefault(test.image_of(row["image_id"]), [])
        if _corners(row) not in boxes:
            boxes.append(_corners(row))
    return crop_people(wanted)


def _tile(test: TestPixels, row: dict[str, Any], crops: Crops) -> Tile:
    crop = crops[test.image_of(row["image_id"]), _corners(row)]
    return Tile(
        picture=as_data_uri(crop),
        width=crop.width,
        height=crop.height,
        image_id=row["image_id"],
        is_right=row.get("is_right"),
        rank=row.get("rank", 0),
        similarity=row.get("similarity", 0.0),
    )


def _corners(row: dict[str, Any]) -> Corners:
    return row["x1"], row["y1"], row["x2"], row["y2"]
