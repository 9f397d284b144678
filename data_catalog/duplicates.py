"""Images that are there more than once, within a split and, worse, between splits or datasets.

A test image in an aggregated training set spoils the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError
from data_catalog.findings import EXAMPLES, Finding, finding
from data_catalog.views import View

BANDS, BAND_BITS = 4, 16
NEAR_BITS = BANDS - 1
"""Two 64-bit hashes that differ in up to 3 bits agree in one of four bands of 16."""
ROWS_AT_ONCE = 256


def duplicate_images(images: Mapping[str, pa.Table]) -> list[Finding]:
    """Images of equal content; `images` maps datasets to tables with image_id, split and sha256."""
    tables = [
        pa.table(
            {
                "place": _places(name, table),
                "image": pc.binary_join_element_wise(_places(name, table), table["image_id"], "/"),
                "sha256": table["sha256"],
            }
        ).filter(pc.is_valid(table["sha256"]))
        for name, table in images.items()
    ]
    groups = (
        pa.concat_tables(tables)
        .group_by("sha256")
        .aggregate([("place", "count_distinct"), ("image", "list"), ([], "count_all")])
    )
    repeated = groups.filter(pc.greater(groups["count_all"], 1))
    in_several = pc.greater(repeated["place_count_distinct"], 1)
    between = repeated["image_list"].filter(in_several)
    within = repeated["image_list"].filter(pc.invert(in_several))
    return [
        finding(
            "warning",
            "image_in_two_splits",
            _joined(between),
            "images are in more than one split or dataset, byte for byte",
            len(between),
        ),
        finding("note", "image_twice", _joined(within), "images have copies under other names", len(within)),
    ]


def images_in_both(training: Sequence[View], test: Sequence[View]) -> pa.Table:
    """Images whose bytes are in a training view and in a test view; no image is opened.

    A row for each pair: `training` and `test` name the views as dataset/split, `training_image` and
    `test_image` the images in the catalog.

    Raises:
        CatalogError: when a view's snapshot was made without images, whose bytes are unknown.
    """
    sides = {name: _shown(views, name) for name, views in (("training", training), ("test", test))}
    found = sides["training"].join(sides["test"], "sha256", join_type="inner")
    columns = ["training", "training_image", "test", "test_image"]
    return found.select(columns).sort_by([(name, "ascending") for name in columns])


def _shown(views: Sequence[View], side: str) -> pa.Table:
    schema = pa.schema([(name, pa.string()) for name in ("sha256", side, f"{side}_image")])
    tables = []
    for view in views:
        images = view.images.select(["sha256", "image_id"])
        if images["sha256"].null_count:
            raise CatalogError(
                f"{view.snapshot.name}: the snapshot was made without images: they cannot be compared; "
                "ingest it with its images"
            )
        place = pa.repeat(f"{view.snapshot.name}/{view.split}", len(images))
        tables.append(pa.table([images["sha256"], place, images["image_id"]], schema=schema))
    return pa.concat_tables([schema.empty_table(), *tables])


def near_duplicate_images(
    images: Mapping[str, pa.Table], hashes: Mapping[str, Sequence[int]]
) -> list[Finding]:
    """Images that look like another: their perceptual hashes differ in at most 3 bits, or not at all.

    `images` maps datasets to tables with image_id and split, `hashes` to the 64-bit hash of each row.
    """
    places = pa.concat_arrays([_places(name, table).combine_chunks() for name, table in images.items()])
    names = pc.binary_join_element_wise(
        places, pa.concat_arrays([table["image_id"].combine_chunks() for table in images.values()]), "/"
    )
    values = np.concatenate([np.array(hashes[name], np.uint64) for name in images])
    twins = near_twins(values, places.dictionary_encode().indices.to_numpy())
    between, within = np.flatnonzero(twins.elsewhere >= 0), np.flatnonzero(twins.in_place >= 0)
    return [
        finding(
            "warning",
            "near_duplicate_in_two_splits",
            [f"{names[i]} = {names[twins.elsewhere[i]]}" for i in between[:EXAMPLES].tolist()],
            "images look like an image of another split or dataset",
            len(between),
        ),
        finding(
            "note",
            "near_duplicate",
            [f"{names[i]} = {names[twins.in_place[i]]}" for i in within[:EXAMPLES].tolist()],
            "images look like another image of their split",
            len(within),
        ),
    ]


@dataclass(frozen=True)
class Twins:
    """For each image (n,) the first that looks like it, or -1: in its own place, and elsewhere.

    Places are splits. Counting images, not pairs, bounds the memory: in a video all frames look alike.
    """

    in_place: np.ndarray
    elsewhere: np.ndarray


def near_twins(hashes: np.ndarray, place: np.ndarray) -> Twins:
    """Twins by 64-bit hashes (n,) uint64 that differ in at most 3 bits; `place` (n,) numbers the splits."""
    none = len(hashes)
    in_place, elsewhere = np.full(none, none), np.full(none, none)
    for group in _candidates(hashes):
        for start in range(0, len(group), ROWS_AT_ONCE):
            rows = group[start : start + ROWS_AT_ONCE]
            near = np.bitwise_count(hashes[rows, None] ^ hashes[group]) <= NEAR_BITS
            near &= rows[:, None] != group
            same = place[rows, None] == place[group]
            for found, which in ((in_place, near & same), (elsewhere, near & ~same)):
                first = np.where(which.any(axis=1), group[which.argmax(axis=1)], none)
                found[rows] = np.minimum(found[rows], first)
    return Twins(*(np.where(found == none, -1, found) for found in (in_place, elsewhere)))


def _candidates(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Groups of two or more images, each ascending, whose hashes agree in a band."""
    for band in range(BANDS):
        keys = (hashes >> np.uint64(BAND_BITS * band)) & np.uint64((1 << BAND_BITS) - 1)
        order = np.argsort(keys, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
        yield from (group for group in groups if len(group) > 1)


def _places(name: str, table: pa.Table) -> pa.ChunkedArray:
    """The split of each image with its dataset: prw/train."""
    return pc.binary_join_element_wise(pa.scalar(name), table["split"].cast(pa.string()), "/")


def _joined(lists: pa.ChunkedArray) -> list[str]:
    return [" = ".join(sorted(names)) for names in lists.slice(0, EXAMPLES).to_pylist()]
