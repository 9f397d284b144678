"""Inputs of `evaluate`: detections, queries, ground truth and galleries as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.records import (
    Detections,
    FloatArray,
    GalleryLists,
    GroundTruth,
    IntArray,
    Queries,
)


@dataclass(frozen=True, eq=False)
class SearchProtocol:
    """The queries of a protocol, and the images that each one searches.

    Parameters
    ----------
    queries
        The people to find.
    lists
        The gallery of each query; by default all test images except the query's own.

    Raises
    ------
    PersonSearchError
        If there are not as many lists as queries.

    Examples
    --------
    >>> import numpy as np
    >>> one = Queries(np.array([0]), np.array([[0, 0, 40, 100]]), np.ones((1, 2), np.float32))
    >>> SearchProtocol(one).lists is None  # it searches all images but its own
    True
    """

    queries: Queries
    lists: GalleryLists | None = None

    def __post_init__(self) -> None:
        if self.lists is not None and len(self.lists) != len(self.queries):
            raise PersonSearchError(
                f"the protocol has {len(self.lists)} queries, but the table has {len(self.queries)}"
            )


@dataclass(frozen=True, eq=False)
class EvaluationInputs:
    """One test set and what was detected in it. Images are numbered from 0 to `n_images` - 1.

    Parameters
    ----------
    detections
        Detected people with their embeddings.
    n_images
        Number of test images, including those without detections.
    protocols
        By name, as in `Setting.protocol`. Each is looked up once: a mapping may read it only then.
    truth
        Annotated people, for protocols without lists, for detection's figures and to tell right matches.
    truth_embeddings
        (n, d) of the boxes of `truth`, for settings with ground-truth boxes.
    cameras
        (n_images,) the camera of each image, for searches across cameras.

    Raises
    ------
    PersonSearchError
        If the lengths of the arrays do not fit together.
    """

    detections: Detections
    n_images: int
    protocols: Mapping[str, SearchProtocol] = field(default_factory=dict)
    truth: GroundTruth | None = None
    truth_embeddings: FloatArray | None = None
    cameras: IntArray | None = None

    def __post_init__(self) -> None:
        boxes = len(self.truth) if self.truth is not None else 0
        for name, wanted in (("cameras", self.n_images), ("truth_embeddings", boxes)):
            value = getattr(self, name)
            if value is not None and len(value) != wanted:
                raise PersonSearchError(f"{name} has {len(value)} rows, but should have {wanted}")
        self._check_images("detections", self.detections.image)
        if self.truth is not None:
            self._check_images("ground truth", self.truth.image)

    def required(self, name: str, purpose: str) -> Any:
        """An input that `purpose` needs; raises PersonSearchError if it is missing."""
        value = getattr(self, name)
        if value is None:
            raise PersonSearchError(f"{purpose} needs {name}, which the inputs do not have")
        return value

    def protocol(self, name: str) -> SearchProtocol:
        """A protocol by its name; raises PersonSearchError if it is missing."""
        try:
            protocol = self.protocols[name]
        except KeyError:
            known = ", ".join(self.protocols) or "none"
            raise PersonSearchError(f"the inputs have no protocol {name!r}; they have: {known}") from None
        self._check_images(f"queries of {name}", protocol.queries.image)
        if protocol.lists is not None:
            self._check_images(f"gallery lists of {name}", protocol.lists.image)
        return protocol

    def _check_images(self, what: str, image: IntArray) -> None:
        if image.max(initial=-1) >= self.n_images:
            raise PersonSearchError(f"{what}: image {image.max()} is outside the {self.n_images} images")
