"""Detections on their way: blocks of images of a test view, each complete on the disk or computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.row_tables import COORDINATES, corners
from flows.plan.views import SnapshotView
from flows.stages.earlier import contents
from storage.durable import flush

if TYPE_CHECKING:
    from personsearch_core.data.scenes import Scene
    from personsearch_core.pooling.detections import SceneDetections

DETECTION, QUERY, TRUTH = "detection", "query", "truth"
BLOCK_IMAGES = 64
"""An interrupted stage resumes at a multiple of this many images."""

ROWS_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("role", pa.dictionary(pa.int32(), pa.string())),
        ("image_id", pa.string()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
        ("score", pa.float32()),
        ("box_id", pa.string()),
    ]
)
_NO_BOXES = np.zeros((0, 4), np.float32)
_MOSTLY = 0.5
"""The share of a detection's area, or the IoU."""


@dataclass(frozen=True, eq=False)
class TestImages:
    """The images of a test view: their scenes, query boxes and contents (see `earlier.contents`).

    forgotten: ids of the boxes that show forgotten people, for whom nothing is computed.
    """

    __test__ = False  # its name is the field's; pytest must not collect it

    scenes: Sequence[Scene]
    queries: Sequence[np.ndarray]
    contents: Sequence[str]
    forgotten: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.scenes)

    def extra(self, number: int) -> np.ndarray:
        """(n, 4) the boxes of an image that are pooled along with its detections: queries, then truth."""
        return np.concatenate([self.queries[number], self.scenes[number].boxes[~self._forgotten(number)]])

    def truth_ids(self, number: int) -> list[str]:
        """The ids of the ground-truth boxes among `extra`."""
        box_ids = self.scenes[number].box_ids
        return [box_id for box_id in box_ids if box_id not in self.forgotten]

    def kept(self, number: int, boxes: np.ndarray) -> np.ndarray:
        """Which detections (n, 4) of an image stay: they do not show a forgotten person.

        One does if it lies on that person's box, mostly, and overlaps no other box of the image better.
        """
        lost, all_boxes = self._forgotten(number), self.scenes[number].boxes
        if not len(boxes) or not lost.any():
            return np.ones(len(boxes), bool)
        low = np.maximum(boxes[:, None, :2], all_boxes[None, :, :2])
        high = np.minimum(boxes[:, None, 2:], all_boxes[None, :, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=2)
        area, areas = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, all_boxes))
        overlap = shared / (area[:, None] + areas[None, :] - shared)
        lies_on = (shared >= _MOSTLY * area[:, None]) | (overlap >= _MOSTLY)
        best = overlap[:, ~lost].max(axis=1, initial=0.0)
        return np.asarray(~(lies_on & (overlap > best[:, None]))[:, lost].any(axis=1))

    def _forgotten(self, number: int) -> np.ndarray:
        """A mask of the scene's boxes."""
        return np.array([box_id in self.forgotten for box_id in self.scenes[number].box_ids], bool)


def images_of(test: SnapshotView) -> TestImages:
    view, scenes = test.view, test.scenes()
    forgotten = frozenset(view.boxes["box_id"].filter(view.forgotten).to_pylist())
    table = view.query_boxes
    boxes = corners(table)
    grouped: dict[str, list[np.ndarray]] = {}
    for image_id, box in zip(table["image_id"].to_pylist(), boxes, strict=True):
        grouped.setdefault(image_id, []).append(box)
    queries = [np.stack(grouped[s.image_id]) if s.image_id in grouped else _NO_BOXES for s in scenes]
    return TestImages(scenes, queries, contents(view.images), forgotten)


@dataclass(frozen=True)
class ImageBlock:
    """Some images of a view by their numbers, and the files of their detections in `folder`.

    Named by its images, so that a stage that resumes with others to detect takes over the blocks that fit.
    """

    folder: Path
    images: Sequence[int]
    name: str

    @property
    def rows(self) -> Path:
        return self.folder / f"{self.name}.parquet"

    @property
    def pooled(self) -> Path:
        return self.folder / f"{self.name}.npy"

    @property
    def mark(self) -> Path:
        return self.folder / f"{self.name}.done"

    def is_done(self) -> bool:
        """Whether it is whole; a kill while finished blocks were removed leaves some files of some."""
        return all(file.exists() for file in (self.mark, self.rows, self.pooled))

    def write(self, wanted: TestImages, found: Iterator[SceneDetections]) -> None:
        """Rows and features of the images; the mark last, so that a block is complete or computed again."""
        columns: dict[str, list[Any]] = {name: [] for name in ROWS_SCHEMA.names}
        features = []
        for number, result in zip(self.images, found, strict=True):
            scene, kept = wanted.scenes[number], wanted.kept(number, result.boxes)
            box_ids = wanted.truth_ids(number)
            n_found, n_queries, n_truth = int(kept.sum()), len(wanted.queries[number]), len(box_ids)
            boxes = np.concatenate([result.boxes[kept], result.extra_boxes])
            features += [result.features[kept], result.extra_features]
            columns["role"] += [DETECTION] * n_found + [QUERY] * n_queries + [TRUTH] * n_truth
            columns["image_id"] += [scene.image_id] * len(boxes)
            columns["score"] += [*result.scores[kept].tolist(), *[None] * (n_queries + n_truth)]
            columns["box_id"] += [*[None] * (n_found + n_queries), *box_ids]
            for position, name in enumerate(COORDINATES):
                columns[name] += boxes[:, position].tolist()
        columns["row"] = [0] * len(columns["role"])
        pq.write_table(pa.table(columns, schema=ROWS_SCHEMA), self.rows)
        np.save(self.pooled, np.concatenate(features))
        # On the disk before the mark says so: a power cut must not leave a mark without its block.
        flush(self.rows)
        flush(self.pooled)
        self.mark.touch()


def blocks_of(wanted: TestImages, numbers: Sequence[int], folder: Path) -> list[ImageBlock]:
    """The images of these numbers, in blocks of their own."""
    parts = [numbers[start : start + BLOCK_IMAGES] for start in range(0, len(numbers), BLOCK_IMAGES)]
    return [ImageBlock(folder, part, _name(wanted, part)) for part in parts]


def _name(wanted: TestImages, numbers: Sequence[int]) -> str:
    total = hashlib.sha256()
    for number in numbers:
        total.update(f"{wanted.scenes[number].image_id}\0{wanted.contents[number]}\0".encode())
    return total.hexdigest()[:16]
