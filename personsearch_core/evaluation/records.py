"""What evaluators take: plain NumPy arrays with a name for each column, checked once.

Images, people and cameras are integers here; what they are called is the business of whoever read them. All
boxes are xyxy pixels of the original image, 0-based, x2 and y2 exclusive, unclipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personsearch_core.errors import PersonSearchError

IntArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Detections:
    """Detected people of all test images, in any order.

    `image` (n,) integers, `boxes` (n, 4), `scores` (n,), `embeddings` (n, d) float32; d = 0 where nobody
    searches. Raises PersonSearchError on columns of unequal length and on NaN or infinity.
    """

    image: IntArray
    boxes: FloatArray
    scores: FloatArray
    embeddings: FloatArray

    def __post_init__(self) -> None:
        _check_columns("detections", self)

    def __len__(self) -> int:
        return len(self.image)

    def select(self, rows: IntArray | BoolArray) -> Detections:
        """The given rows, in the given order."""
        return Detections(self.image[rows], self.boxes[rows], self.scores[rows], self.embeddings[rows])


@dataclass(frozen=True, eq=False)
class Queries:
    """The people to find: `image` (q,), `boxes` (q, 4), `embeddings` (q, d), `person` (q,) where known."""

    image: IntArray
    boxes: FloatArray
    embeddings: FloatArray
    person_id: IntArray | None = None

    def __post_init__(self) -> None:
        _check_columns("queries", self)
        if not len(self.image):
            raise PersonSearchError("queries: there are no rows; an evaluation needs at least one query")

    def __len__(self) -> int:
        return len(self.image)

    def person_ids(self) -> IntArray:
        """`person`, for protocols that cannot do without it; raises PersonSearchError where it is missing."""
        if self.person_id is None:
            raise PersonSearchError("queries: this protocol finds ground truth by identity; give person ids")
        return self.person_id


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Annotated people: `image` (n,), `boxes` (n, 4), `person` (n,) or UNLABELLED, `ignore` (n,) regions."""

    image: IntArray
    boxes: FloatArray
    person_id: IntArray
    ignore: BoolArray = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        if not len(self.ignore) and len(self.image):
            object.__setattr__(self, "ignore", np.zeros(len(self.image), bool))
        _check_columns("ground truth", self)

    def __len__(self) -> int:
        return len(self.image)

    def select(self, rows: IntArray | BoolArray) -> GroundTruth:
        """The given rows, in the given order."""
        return GroundTruth(self.image[rows], self.boxes[rows], self.person_id[rows], self.ignore[rows])


@dataclass(frozen=True, eq=False)
class GalleryLists:
    """A protocol that lists gallery images for each query, as CUHK-SYSU's files do.

    Query i's rows are `offsets[i]:offsets[i + 1]` of `image`, `is_positive` and `boxes` (the query's person
    in that image; meaningless where not positive).
    """

    offsets: IntArray
    image: IntArray
    is_positive: BoolArray
    boxes: FloatArray

    def __post_init__(self) -> None:
        n_rows = len(self.image)
        if len(self.is_positive) != n_rows or self.boxes.shape != (n_rows, 4):
            raise PersonSearchError(
                f"gallery lists: {n_rows} images, {len(self.is_positive)} flags and boxes of shape "
                f"{self.boxes.shape} do not go together"
            )
        if not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != n_rows:
            raise PersonSearchError(f"gallery lists: offsets must run from 0 to the {n_rows} rows")
        if not np.isfinite(self.boxes[self.is_positive]).all():
            raise PersonSearchError("gallery lists: a positive image has a box that is NaN or infinite")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def from_rows(
        cls, query: IntArray, image: IntArray, is_positive: BoolArray, boxes: FloatArray, n_queries: int
    ) -> GalleryLists:
        """From rows (query, image, positive, box) in any order of queries; a query's own order is kept."""
        order = np.argsort(query, kind="stable")
        if len(query) and not 0 <= query[order[0]] <= query[order[-1]] < n_queries:
            raise PersonSearchError(f"gallery lists: a query is outside 0..{n_queries - 1}")
        offsets = np.searchsorted(query[order], np.arange(n_queries + 1))
        return cls(offsets, image[order], is_positive[order].astype(bool), boxes[order])


def _check_columns(what: str, record: Detections | Queries | GroundTruth) -> None:
    columns = {name: value for name, value in vars(record).items() if value is not None}
    n_rows = len(record.image)
    for name, value in columns.items():
        if len(value) != n_rows:
            raise PersonSearchError(f"{what}: {len(value)} rows of {name!r}, but {n_rows} of 'image'")
    if record.boxes.shape != (n_rows, 4):
        raise PersonSearchError(f"{what}: boxes must have shape ({n_rows}, 4), not {record.boxes.shape}")
    if n_rows and record.image.min() < 0:
        raise PersonSearchError(f"{what}: image indices must not be negative")
    for name in ("boxes", "scores", "embeddings"):
        if name in columns and not np.isfinite(columns[name]).all():
            bad = np.isfinite(columns[name].reshape(n_rows, -1)).all(axis=1).argmin()
            raise PersonSearchError(f"{what}: {name!r} of row {bad} is NaN or infinite")
