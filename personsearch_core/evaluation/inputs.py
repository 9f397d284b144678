"""What `evaluate` takes: detections, queries, ground truth and galleries as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """Whom a protocol searches for and, where it lists them, the gallery of each query.

    Without `lists` a query ranks all test images but its own.
    """

    queries: Queries
    lists: GalleryLists | None = None


@dataclass(frozen=True, eq=False)
class EvaluationInputs:
    """One test set with what was detected in it. Images are numbered from 0 to `n_images` - 1.

    Attributes:
        detections: people that were detected, with their embeddings.
        n_images: all test images, those without detections too.
        protocols: by name, as `Setting.protocol` has it; each is asked for once, and may be read only then.
        truth: annotated people, for protocols without lists, for detection's figures and for right matches.
        truth_embeddings: (n, d) of the boxes of `truth`, for settings with ground-truth boxes.
        cameras: (n_images,) the camera of each image, for searches across cameras.

    Raises PersonSearchError where arrays do not have the lengths that they should.
    """

    detections: Detections
    n_images: int
    protocols: Mapping[str, SearchProtocol] = field(default_factory=dict)
    truth: GroundTruth | None = None
    truth_embeddings: FloatArray | None = None
    cameras: IntArray | None = None

    def __post_init__(self) -> None:
        if self.cameras is not None and len(self.cameras) != self.n_images:
            raise PersonSearchError(
                f"{len(self.cameras)} cameras for {self.n_images} images: give one per image"
            )
        described = self.truth_embeddings
        if described is not None and len(described) != (n := len(self.annotated("truth_embeddings"))):
            raise PersonSearchError(
                f"{len(described)} embeddings of {n} ground-truth boxes: give one per box"
            )

    def annotated(self, purpose: str) -> GroundTruth:
        """`truth`, for a purpose that needs it; raises PersonSearchError where it is missing."""
        if self.truth is None:
            raise PersonSearchError(f"{purpose} needs ground truth; give `truth`")
        return self.truth
