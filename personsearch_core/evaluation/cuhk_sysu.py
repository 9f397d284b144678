"""CUHK-SYSU's search protocol (Xiao et al., CVPR 2017): galleries of listed images, or the full test set."""

from __future__ import annotations

import numpy as np

from personsearch_core.evaluation.records import GalleryLists, ImageLists, IntArray, Queries
from personsearch_core.evaluation.task import NO_GROUP, QueryTruths, Scope, WholeGallery


def listed_search(
    queries: Queries, lists: GalleryLists, *, full_gallery: bool = False, repeats: bool = False
) -> tuple[Scope, QueryTruths]:
    """What each query ranks and should find; query i ranks the images of entry i of `lists`.

    With `full_gallery` a query ranks all images except its own, once each (pass the lists of TestG50); its
    own image stays if a list has it as a positive. An image that a list repeats is ranked once, with
    `repeats` as often as it is listed; its ground truth always counts as often as it is listed.
    """
    repeats = repeats and not full_gallery
    truths, own_image_listed = _truths(queries, lists, repeats)
    if full_gallery:
        hidden = queries.image.astype(np.int64)
        hidden[own_image_listed] = NO_GROUP
        return WholeGallery(hidden), truths
    return ImageLists(lists.offsets, lists.image) if repeats else _listed(lists), truths


def _truths(queries: Queries, lists: GalleryLists, repeats: bool) -> tuple[QueryTruths, IntArray]:
    """Ground truths of all queries, and the queries with their own image among the positives."""
    rows = np.flatnonzero(lists.is_positive)
    query = lists.queries()[rows]
    count = np.bincount(query, minlength=len(lists))
    if not repeats:
        rows = rows[_first_of_each(query, lists.image[rows])]
    query = lists.queries()[rows]
    offsets = np.searchsorted(query, np.arange(len(lists) + 1))
    own = query[lists.image[rows] == queries.image[query]]
    return QueryTruths(offsets, lists.image[rows], lists.boxes[rows].astype(np.float64), count), own


def _listed(lists: GalleryLists) -> ImageLists:
    rows = _first_of_each(lists.queries(), lists.image)
    kept_before = np.searchsorted(rows, lists.offsets)
    return ImageLists(kept_before, lists.image[rows])


def _first_of_each(query: IntArray, image: IntArray) -> IntArray:
    """Positions, ascending, of the first row of each (query, image)."""
    key = query.astype(np.int64) * (int(image.max(initial=0)) + 1) + image
    ordered = np.sort(key)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    suspects = np.flatnonzero(np.isin(key, repeated))
    first = suspects[np.unique(key[suspects], return_index=True)[1]]
    return np.delete(np.arange(len(key)), np.setdiff1d(suspects, first))
