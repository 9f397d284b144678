"""A search protocol as data: which images each query ranks, and which box it should find in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from personsearch_core.evaluation.records import FloatArray, ImageLists, IntArray

Rescore = Callable[[int, IntArray, FloatArray], FloatArray]
"""Re-ranking, context matching: from a query, detections (n,), as indices into the grouped ones, and their
similarities (n,) to the similarities (n,) to rank by."""


@dataclass(frozen=True, eq=False)
class QueryTruths(ImageLists):
    """What each query should find: at most one box per image.

    `boxes` (n, 4) belong to the rows; `count` (q,) is the number of ground truths that AP divides by.
    """

    boxes: FloatArray
    count: IntArray


NO_GROUP = -1


@dataclass(frozen=True, eq=False)
class WholeGallery:
    """Each query ranks all detections except those of one group of images, `group` (q,), NO_GROUP = none.

    With `only` it ranks that group alone. `also_hidden` removes further images.
    """

    group: IntArray
    also_hidden: ImageLists | None = None
    only: bool = False


Scope = ImageLists | WholeGallery
"""Which images each query ranks: listed ones, each once, or all but a few."""
