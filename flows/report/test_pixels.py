"""A test set as the page draws it: its images, its annotated people, and what was detected in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.images import ImageFile
from data_catalog.row_tables import corners
from data_catalog.views import View
from flows.report.content import Corners
from flows.stages.detected_blocks import DETECTION
from flows.stages.detections import ROWS
from personsearch_core.evaluation.detection_curves import JudgedDetections, judge_detections
from personsearch_core.evaluation.matching import iou, match_threshold
from personsearch_core.evaluation.records import Detections, GroundTruth
from personsearch_core.identities import UNLABELLED


@dataclass(frozen=True)
class TestPixels:
    """A test view, the root folder of its images, and the gallery whose detections are drawn."""

    __test__ = False

    view: View
    root: Path
    gallery: Path

    def image_of(self, image_id: str) -> ImageFile:
        return ImageFile.of_row(self.root, *self._files[image_id])

    @cached_property
    def hidden(self) -> dict[ImageFile, list[Corners]]:
        """The regions of the images that show forgotten people."""
        found: dict[ImageFile, list[Corners]] = {}
        boxes = self.view.boxes.filter(self.view.forgotten)
        for image_id, (x1, y1, x2, y2) in zip(
            boxes["image_id"].to_pylist(), corners(boxes).tolist(), strict=True
        ):
            found.setdefault(self.image_of(image_id), []).append((x1, y1, x2, y2))
        return found

    @cached_property
    def detections(self) -> pa.Table:
        rows = pq.read_table(self.gallery / ROWS)
        return rows.filter(pc.equal(rows["role"].cast(pa.string()), DETECTION))

    @cached_property
    def people(self) -> pa.Table:
        """The boxes of the view that are not ignore regions."""
        return self.view.boxes.filter(pc.invert(self.view.boxes["ignore"]))

    @cached_property
    def judged(self) -> JudgedDetections:
        """Rows are those of `detections` and of the view's boxes."""
        boxes, found = self.view.boxes, self.detections
        image_ids = self.view.images["image_id"].combine_chunks()
        people = np.full(len(boxes), UNLABELLED)
        truth = GroundTruth(
            _numbers(boxes, image_ids), corners(boxes), people, boxes["ignore"].to_numpy(zero_copy_only=False)
        )
        no_embeddings = np.zeros((len(found), 0), np.float32)
        detections = Detections(
            _numbers(found, image_ids), corners(found), found["score"].to_numpy(), no_embeddings
        )
        return judge_detections(detections, truth, len(image_ids))

    @cached_property
    def _files(self) -> dict[str, tuple[str, str | None]]:
        columns = (self.view.images[name].to_pylist() for name in ("image_id", "rel_path", "decoding"))
        return {image_id: (rel_path, decoding) for image_id, rel_path, decoding in zip(*columns, strict=True)}


def rows_of(table: pa.Table, image_id: str) -> np.ndarray:
    """Numbers of the rows of an image."""
    return np.flatnonzero(pc.equal(table["image_id"], image_id).to_numpy(zero_copy_only=False))


def best_overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The highest IoU of each of `boxes` (n, 4) with one of `others` (m, 4) -> (n,), 0 without any."""
    n, m = len(boxes), len(others)
    overlaps = iou(np.repeat(boxes, m, axis=0), np.tile(others, (n, 1))).reshape(n, m)
    return np.asarray(overlaps.max(axis=1, initial=0.0))


def are_found(people: np.ndarray, detected: np.ndarray) -> np.ndarray:
    """Whether each of `people` (n, 4) matches one of `detected` (m, 4), by the protocols' rule -> (n,)."""
    return np.asarray(best_overlaps(people, detected) >= match_threshold(people.astype(np.float64)))


def _numbers(table: pa.Table, image_ids: pa.Array) -> np.ndarray:
    return np.asarray(pc.index_in(table["image_id"].cast(pa.string()), value_set=image_ids).to_numpy())
