"""One scene image and the people in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personsearch_core.errors import PersonSearchError


@dataclass(frozen=True, eq=False)
class Scene:
    """One image, where it lies, and its boxes.

    Parameters
    ----------
    image_id
        Name of the image, unique within its dataset.
    path
        The file.
    width, height
        Size in pixels of the decoded image.
    boxes
        (n, 4) float32 x1, y1, x2, y2 in pixels of the decoded image, not clipped.
    ignore
        (n,) bool: regions that are neither people nor background.
    box_ids, person_ids
        Names of the n boxes and of the people in them; None for an unknown person.
    source
        Training set or dataset that the scene came from, for logs.
    camera_id
        Number of the camera, or None.
    apply_exif
        Whether decoding turns the image as its EXIF orientation says.

    Raises
    ------
    PersonSearchError
        If the columns differ in length or the size is not positive.

    Examples
    --------
    >>> box = np.array([[10, 20, 50, 120]], np.float32)
    >>> scene = Scene("a", "a.jpg", 640, 480, box, np.zeros(1, bool), ("a-0",), ("alice",))
    >>> len(scene.box_ids)
    1
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
