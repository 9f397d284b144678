"""A search protocol as data: which images each query ranks, and which box it should find in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from personsearch_core.evaluation.records import FloatArray, IntArray


class Rescore(Protocol):
    """Replaces similarities before ranking: re-ranking, context matching."""

    def __call__(self, query: int, detections: IntArray, similarities: FloatArray) -> FloatArray:
        """New similarities (n,) to a query of `detections` (n,), indices into the grouped detections."""


@dataclass(frozen=True, eq=False)
class QueryTruths:
    """What each query should find: at most one box per image.

    Query i's are `offsets[i]:offsets[i + 1]` of `image` and `boxes`; `count` (q,) is the number of ground
    truths that AP divides by.
    """

    offsets: IntArray
    image: IntArray
    boxes: FloatArray
    count: IntArray


@dataclass(frozen=True, eq=False)
class ListedGallery:
    """Query i ranks the detections of `image[offsets[i]:offsets[i + 1]]`, each image once."""

    offsets: IntArray
    image: IntArray


@dataclass(frozen=True, eq=False)
class HiddenImages:
    """Images that query i must not rank: `image[offsets[i]:offsets[i + 1]]`."""

    offsets: IntArray
    image: IntArray

    def of(self, query: int) -> IntArray:
        return self.image[self.offsets[query] : self.offsets[query + 1]]


NO_GROUP = -1


@dataclass(frozen=True, eq=False)
class WholeGallery:
    """Each query ranks all detections except those of one group of images, `group` (q,), NO_GROUP = none.

    With `only` it ranks that group alone. `also_hidden` removes further images.
    """

    group: IntArray
    also_hidden: HiddenImages | None = None
    only: bool = False
