"""Pictures of whole scenes with boxes on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.images import ImageFile
from data_catalog.row_tables import corners
from flows.report.content import Corners, DrawnBox, ScenePicture
from flows.report.labels import place_labels
from flows.report.pictures import SCENE_SIZE, read_picture
from flows.report.test_pixels import TestPixels, rows_of
from flows.wording import counted
from personsearch_core.drawing import as_data_uri, fitted


def scenes_with_people(images: pa.Table, boxes: pa.Table, count: int) -> pa.Table:
    """`count` rows of `images`, spread over those with boxes that are not ignore regions."""
    with_people = boxes.filter(pc.invert(boxes["ignore"]))["image_id"].unique()
    chosen = images.filter(pc.is_in(images["image_id"], value_set=with_people))
    return chosen.take(spread(len(chosen), count))


def spread(length: int, count: int) -> np.ndarray:
    """At most `count` evenly spaced positions of 0..length-1, always including the last."""
    count = min(length, count)
    return ((np.arange(count) + 1) * length // max(count, 1) - 1).astype(np.int64)


def draw_scene(
    file: ImageFile, image_id: str, boxes: Sequence[DrawnBox], shown: str, hidden: Sequence[Corners] = ()
) -> ScenePicture:
    """The image with its boxes, later ones on top; `shown` says what they are, for the caption.

    `hidden` regions are painted over. Raises StageError if the image cannot be read.
    """
    whole = read_picture(file, hidden)
    return ScenePicture(
        name=f"Image {image_id}: {shown}",
        picture=as_data_uri(fitted(whole, SCENE_SIZE)),
        width=whole.width,
        height=whole.height,
        boxes=boxes,
        labels=place_labels(boxes, whole.width, whole.height),
        caption=f"{image_id}: {shown}",
    )


def draw_test_scenes(test: TestPixels, count: int, score_threshold: float) -> list[ScenePicture]:
    """`count` images spread over those that show people, with what the detector found, missed, imagined."""
    images = test.view.images.select(["image_id"])
    chosen = scenes_with_people(images, test.view.boxes, count)["image_id"].to_pylist()
    return [_test_scene(test, image_id, score_threshold) for image_id in chosen]


def _test_scene(test: TestPixels, image_id: str, score_threshold: float) -> ScenePicture:
    judged, boxes = test.judged, test.view.boxes
    annotated = rows_of(boxes, image_id)
    missed = annotated[judged.is_person[annotated] & (judged.found_at[annotated] < score_threshold)]
    ignored = annotated[~judged.is_person[annotated]]
    kept = rows_of(test.detections, image_id)
    kept = kept[judged.scores[kept] >= score_threshold]
    kept = kept[np.argsort(-judged.scores[kept], kind="stable")]
    found = kept[judged.person[kept] >= 0]
    false = kept[(judged.person[kept] < 0) & judged.counted[kept]]
    uncounted = kept[~judged.counted[kept]]
    drawn = [
        *_drawn(boxes, ignored, "ignored"),
        *_drawn(test.detections, uncounted, "ignored"),
        *_drawn(test.detections, found, "found", judged.scores),
        *_drawn(test.detections, false, "false", judged.scores),
        *_drawn(boxes, missed, "missed"),
    ]
    mistakes = counted(len(false), "false positive")
    shown = f"{len(found)} of {len(found) + len(missed)} people found, {mistakes}"
    file = test.image_of(image_id)
    return draw_scene(file, image_id, drawn, shown, test.hidden.get(file, ()))


def _drawn(
    table: pa.Table, rows: np.ndarray, style: str, scores: np.ndarray | None = None
) -> Iterator[DrawnBox]:
    for row, box in zip(rows, corners(table.take(rows)).tolist(), strict=True):
        x1, y1, x2, y2 = (round(value, 1) for value in box)
        yield DrawnBox(style, (x1, y1, x2, y2), "" if scores is None else f"{scores[row]:.2f}")
