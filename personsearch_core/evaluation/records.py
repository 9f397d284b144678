"""Inputs of the evaluation: plain NumPy arrays with a name for each column, checked once.

Images, people and cameras are integers here; their names are left to the reader of the data. All boxes are
x1, y1, x2, y2 in pixels of the original image, 0-based, x2 and y2 exclusive, not clipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from personsearch_core.errors import PersonSearchError

IntArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Columns of equal length, an image and a box in each row."""

    image: IntArray
    boxes: FloatArray

    _called: ClassVar[str]

    def __post_init__(self) -> None:
        columns = {name: value for name, value in vars(self).items() if value is not None}
        n_rows = len(self)
        for name, value in columns.items():
            if len(value) != n_rows:
                raise PersonSearchError(
                    f"{self._called}: {len(value)} rows of {name!r}, but {n_rows} of 'image'"
                )
        if self.boxes.shape != (n_rows, 4):
            raise PersonSearchError(
                f"{self._called}: boxes must have shape ({n_rows}, 4), not {self.boxes.shape}"
            )
        if n_rows and self.image.min() < 0:
            raise PersonSearchError(f"{self._called}: image indices must not be negative")
        for name in ("boxes", "scores", "embeddings"):
            if name in columns and not np.isfinite(columns[name]).all():
                bad = np.isfinite(columns[name].reshape(n_rows, -1)).all(axis=1).argmin()
                raise PersonSearchError(f"{self._called}: {name!r} of row {bad} is NaN or infinite")

    def __len__(self) -> int:
        return len(self.image)

    def select(self, rows: IntArray | BoolArray) -> Self:
        """The given rows, in the given order."""
        columns: dict[str, Any] = {
            name: None if column is None else column[rows] for name, column in vars(self).items()
        }
        return replace(self, **columns)


@dataclass(frozen=True, eq=False)
class Detections(_Boxes):
    """People detected in all test images, in any order.

    Parameters
    ----------
    image
        (n,) integers.
    boxes
        (n, 4) pixels.
    scores
        (n,).
    embeddings
        (n, d) float32; d = 0 if there is nothing to search for.

    Raises
    ------
    PersonSearchError
        If columns differ in length, or hold NaN or infinity.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 40, 100], [50, 0, 90, 100]], np.float32)
    >>> found = Detections(np.array([0, 0]), boxes, np.array([0.9, 0.4]), np.eye(2, dtype=np.float32))
    >>> len(found.select(found.scores >= 0.5))
    1
    """

    scores: FloatArray
    embeddings: FloatArray

    _called = "detections"


@dataclass(frozen=True, eq=False)
class Queries(_Boxes):
    """The people to find.

    Parameters
    ----------
    image
        (q,) integers.
    boxes
        (q, 4) pixels.
    embeddings
        (q, d) float32.
    person_id
        (q,) integers, if known.

    Raises
    ------
    PersonSearchError
        If columns differ in length, or hold NaN or infinity.

    Examples
    --------
    >>> box, embedding = np.array([[0, 0, 40, 100]]), np.ones((1, 2), np.float32)
    >>> Queries(np.array([3]), box, embedding, person_id=np.array([7])).person_ids().tolist()
    [7]
    """

    embeddings: FloatArray
    person_id: IntArray | None = None

    _called = "queries"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self):
            raise PersonSearchError("queries: the table is empty; an evaluation needs at least one query")

    def person_ids(self) -> IntArray:
        """`person_id`, for protocols that need it; raises PersonSearchError if it is missing."""
        if self.person_id is None:
            raise PersonSearchError("queries: this protocol finds ground truth by identity; give person ids")
        return self.person_id


@dataclass(frozen=True, eq=False)
class GroundTruth(_Boxes):
    """Annotated people of all test images.

    Parameters
    ----------
    image
        (n,) integers.
    boxes
        (n, 4) pixels.
    person_id
        (n,) integers, `UNLABELLED` for an unknown person.
    ignore
        (n,) bool: regions that are neither people to find nor background; by default none.

    Raises
    ------
    PersonSearchError
        If columns differ in length, or hold NaN or infinity.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 40, 100], [50, 0, 90, 100]])
    >>> truth = GroundTruth(np.array([0, 1]), boxes, np.array([7, -1]))
    >>> truth.ignore.tolist()
    [False, False]
    """

    person_id: IntArray
    ignore: BoolArray = field(default_factory=lambda: np.zeros(0, bool))

    _called = "ground truth"

    def __post_init__(self) -> None:
        if not len(self.ignore) and len(self):
            object.__setattr__(self, "ignore", np.zeros(len(self), bool))
        super().__post_init__()

    def as_detections(self, embeddings: FloatArray) -> Detections:
        """All boxes but the ignore regions as detections with score 1, to see what detection costs.

        `embeddings` (n, d) belong to the boxes.
        """
        people = self.select(~self.ignore)
        ones = np.ones(len(people), np.float32)
        return Detections(people.image, people.boxes, ones, embeddings[~self.ignore])


@dataclass(frozen=True, eq=False)
class ImageLists:
    """Images listed per query: query i's are rows `offsets[i]:offsets[i + 1]`; `offsets` (q + 1,)."""

    offsets: IntArray
    image: IntArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, query: int) -> IntArray:
        """The images of a query."""
        return self.image[self.offsets[query] : self.offsets[query + 1]]

    def queries(self) -> IntArray:
        """The query of each row (n,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


@dataclass(frozen=True, eq=False)
class GalleryLists(ImageLists):
    """Gallery images listed per query, as in CUHK-SYSU's files.

    Parameters
    ----------
    offsets
        (q + 1,): rows `offsets[i]:offsets[i + 1]` of the other columns belong to query i.
    image
        (n,) integers.
    is_positive
        (n,) bool: whether the image shows the query's person.
    boxes
        (n, 4) pixels: that person's box; meaningless where not positive.

    Raises
    ------
    PersonSearchError
        If the columns do not fit together.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 40, 100], [0, 0, 0, 0]])
    >>> lists = GalleryLists.from_rows(np.zeros(2, int), np.array([4, 5]), np.array([True, False]), boxes, 1)
    >>> lists.offsets.tolist()
    [0, 2]
    """

    is_positive: BoolArray
    boxes: FloatArray

    def __post_init__(self) -> None:
        n_rows = len(self.image)
        if len(self.is_positive) != n_rows or self.boxes.shape != (n_rows, 4):
            raise PersonSearchError(
                f"gallery lists: {n_rows} images, {len(self.is_positive)} flags and boxes of shape "
                f"{self.boxes.shape} do not fit together"
            )
        if not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != n_rows:
            raise PersonSearchError(f"gallery lists: offsets must run from 0 to the {n_rows} rows")
        if not np.isfinite(self.boxes[self.is_positive]).all():
            raise PersonSearchError("gallery lists: a positive image has a box that is NaN or infinite")

    @classmethod
    def from_rows(
        cls, query: IntArray, image: IntArray, is_positive: BoolArray, boxes: FloatArray, n_queries: int
    ) -> GalleryLists:
        """From rows (query, image, positive, box), queries in any order; a query's own order is kept."""
        order = np.argsort(query, kind="stable")
        if len(query) and not 0 <= query[order[0]] <= query[order[-1]] < n_queries:
            raise PersonSearchError(f"gallery lists: a query is outside 0..{n_queries - 1}")
        offsets = np.searchsorted(query[order], np.arange(n_queries + 1))
        return cls(offsets, image[order], is_positive[order].astype(bool), boxes[order])
