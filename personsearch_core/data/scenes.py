"""The unit of pixels: one scene image with the people in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personsearch_core.errors import PersonSearchError


@dataclass(frozen=True, eq=False)
class Scene:
    """One image, where it lies, and its boxes.

    width, height: pixels of the image as it is decoded. apply_exif: whether decoding turns the image as its
    EXIF orientation says.
    boxes: (n, 4) float32 xyxy in pixels of the decoded image, unclipped. ignore: (n,) bool, regions that
    are neither people nor background. person_ids: None where the identity is unknown. source: a label of the
    training entry or dataset that it came from, for logs.
    """

    image_id: str
    path: str
    width: int
    height: int
    boxes: NDArray[np.float32]
    ignore: NDArray[np.bool_]
    box_ids: tuple[str, ...]
    person_ids: tuple[str | None, ...]
    source: str = ""
    camera_id: int | None = None
    apply_exif: bool = True

    def __post_init__(self) -> None:
        n = len(self.box_ids)
        if self.boxes.shape != (n, 4) or self.ignore.shape != (n,) or len(self.person_ids) != n:
            raise PersonSearchError(
                f"scene {self.image_id}: {n} box ids, but boxes of shape {self.boxes.shape}, "
                f"{self.ignore.shape} ignore flags and {len(self.person_ids)} person ids"
            )
        if self.width < 1 or self.height < 1:
            raise PersonSearchError(f"scene {self.image_id}: its size is {self.width}x{self.height} pixels")
