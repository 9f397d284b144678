"""What is odd about a snapshot, or about several together: nothing here changes a row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.duplicates import duplicate_images
from data_catalog.findings import EXAMPLES, Finding, finding, present
from data_catalog.images import ignores_exif
from data_catalog.published import CountComparison, compare_published, counts_with_people
from data_catalog.repeated_ids import repeated_ids
from data_catalog.row_tables import COORDINATES
from data_catalog.rules import Rules
from data_catalog.schema import SCOPE_DATASET
from data_catalog.snapshot import Snapshot, ingest_findings, invalid_rejects

TEST = "test"
ROUNDING = 0.05
"""Pixels; a box that leaves its image by less has corners that were written with few digits."""


def check_snapshot(snapshot: Snapshot) -> list[Finding]:
    """All findings about one snapshot, warnings first."""
    images = snapshot.table("images")
    boxes = snapshot.table(
        "boxes", ["image_id", "split", "ignore", "person_id", "person_scope", *COORDINATES]
    )
    rules = Rules.of_snapshot(snapshot)
    found = [
        *(
            [] if rules.splits else [*_counts(snapshot), *published_findings(compare_published(snapshot))]
        ),  # of the files' own splits
        *ingest_findings(snapshot),
        *damaged_rows(snapshot),
        *_stated_sizes(images),
        _outside(boxes, images),
        finding(
            "warning",
            "box_twice",
            _repeated(boxes, ["image_id", *COORDINATES]),
            "boxes repeat another box of their image exactly",
        ),
        repeated_ids(snapshot),
        _identity_twice(boxes),
        _identity_in_splits(
            boxes, _query_splits(snapshot), by_design=rules.splits is not None and rules.splits.by == "time"
        ),
        _queries_without_box(snapshot),
        _gallery_unknown(snapshot, images["image_id"]),
        *duplicate_images({snapshot.name: images}),
    ]
    return present(found)


def _counts(snapshot: Snapshot) -> list[Finding]:
    row = snapshot.table("datasets").to_pylist()[0]
    found = counts_with_people(snapshot)
    differences = [
        f"{name} {found.get(name, 0):,} where the sources give {number:,}"
        for name, number in row["counts_expected"]
        if found.get(name, 0) != number
    ]
    if not differences:
        return []
    edition = f"; edition found: {row['edition']}" if row["edition"] else ""
    text = _shown(differences) + edition
    return [Finding("note", "counts_differ", len(differences), f"not the whole published dataset: {text}")]


def published_findings(compared: Iterable[CountComparison]) -> list[Finding]:
    """One finding per publication with totals that differ."""
    differing: dict[str, list[CountComparison]] = {}
    for each in compared:
        if each.given != each.found:
            differing.setdefault(each.source, []).append(each)
    return [
        Finding(
            "note", "not_as_published", len(totals), f"{source}: {_shown([str(each) for each in totals])}"
        )
        for source, totals in differing.items()
    ]


def _shown(differences: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(differences) - EXAMPLES
    return "; ".join(differences[:EXAMPLES]) + (f"; and {more} more totals" if more > 0 else "")


def damaged_rows(snapshot: Snapshot) -> list[Finding]:
    """What was left out because it is damaged."""
    damaged = invalid_rejects(snapshot).select(["detail", "source_file", "source_row"])
    what = "rows are damaged and left out (`personsearch datasets rejects` lists them)"
    details = pa.table({"detail": damaged["detail"].cast(pa.string()), "at": np.arange(len(damaged))})
    first = details.group_by("detail").aggregate([("at", "min")])["at_min"].sort().slice(0, EXAMPLES)
    examples = [
        "{source_file}, row {source_row}: {detail}".format(**each) for each in damaged.take(first).to_pylist()
    ]
    return present([finding("warning", "damaged_rows", examples, what, len(damaged))])


def _stated_sizes(images: pa.Table) -> list[Finding]:
    """Annotations that give an image another size than its file has."""
    columns = ("image_id", "width", "height", "stated_width", "stated_height", "decoding")
    differ = images.filter(pc.is_valid(images["stated_width"])).select(columns).to_pylist()
    turned = [each for each in differ if _fits_unturned(each)]
    option = "apply" if turned and ignores_exif(turned[0]["decoding"]) else "ignore"
    what = (
        "images fit their annotations in the other EXIF orientation, so boxes may lie beside people: set the "
        f"option exif={option}"
    )
    other = [
        "{image_id} says {stated_width}x{stated_height}, its file is {width}x{height}".format(**each)
        for each in differ
        if not _fits_unturned(each)
    ]
    return [
        finding("warning", "exif_orientation", [each["image_id"] for each in turned], what),
        finding("warning", "stated_size", other, "images do not have the size that their annotation states"),
    ]


def _fits_unturned(image: Mapping[str, Any]) -> bool:
    swapped = (image["stated_width"], image["stated_height"]) == (image["height"], image["width"])
    return swapped and image["decoding"] is not None and "orientation" in image["decoding"]


def _outside(boxes: pa.Table, images: pa.Table) -> Finding:
    at = pc.index_in(boxes["image_id"], value_set=images["image_id"].combine_chunks())
    width, height = (images[name].take(at) for name in ("width", "height"))
    low = pc.less(pc.min_element_wise(boxes["x1"], boxes["y1"]), -ROUNDING)
    beyond = (pc.subtract(boxes[corner], side) for corner, side in (("x2", width), ("y2", height)))
    high = pc.greater(pc.max_element_wise(*beyond, skip_nulls=False), ROUNDING)
    leaves = pc.fill_null(pc.or_kleene(low, high), False)
    return finding(
        "note",
        "box_leaves_image",
        boxes["image_id"].filter(leaves),
        "boxes leave their image (kept unclipped)",
    )


def _identity_twice(boxes: pa.Table) -> Finding:
    known = boxes.filter(pc.is_valid(boxes["person_id"]))
    return finding(
        "note",
        "identity_twice_in_image",
        _repeated(known, ["image_id", "person_id"]),
        "times an identity has two boxes in the same image",
    )


def _query_splits(snapshot: Snapshot) -> set[str]:
    """Splits that hold queries alone, as Market-1501's `query`: who is asked for is meant to be in `test`."""
    boxes = snapshot.table("boxes", ["box_id", "split"])
    asked = pc.is_in(
        boxes["box_id"], value_set=snapshot.table("queries", ["box_id"])["box_id"].combine_chunks()
    )
    split = boxes["split"].cast(pa.string())
    return set(split.unique().to_pylist()) - set(split.filter(pc.invert(asked)).unique().to_pylist())


def _identity_in_splits(boxes: pa.Table, of_queries: Collection[str], *, by_design: bool) -> Finding:
    dataset_wide = boxes.filter(
        pc.and_(
            pc.is_valid(boxes["person_id"]),
            pc.equal(pc.fill_null(boxes["person_scope"].cast(pa.string()), ""), SCOPE_DATASET),
        )
    )
    split = dataset_wide["split"].cast(pa.string())
    split = pc.if_else(pc.is_in(split, value_set=pa.array(of_queries, pa.string())), TEST, split)
    plain = pa.table({"id": dataset_wide["person_id"], "split": split})
    splits = plain.group_by("id").aggregate([("split", "count_distinct")])
    shared = splits.filter(pc.greater(splits["split_count_distinct"], 1))["id"]
    what = "identities are in more than one split" + (", since these were made by time" if by_design else "")
    return finding("note" if by_design else "warning", "identity_in_two_splits", shared, what)


def _queries_without_box(snapshot: Snapshot) -> Finding:
    queries = snapshot.table("queries", ["query_id", "box_id"])
    lost = queries["query_id"].filter(pc.is_null(queries["box_id"]))
    return finding("warning", "query_without_box", lost, "queries overlap no annotated box of their person")


def _gallery_unknown(snapshot: Snapshot, image_ids: pa.ChunkedArray) -> Finding:
    known = image_ids.combine_chunks()
    lost: list[str] = []
    count = 0
    for protocol in snapshot.protocols():
        names = snapshot.gallery(protocol, ["image_id"])["image_id"].cast(pa.string())
        unknown = names.filter(pc.invert(pc.is_in(names, value_set=known)))
        count += len(unknown)
        lost += unknown.slice(0, EXAMPLES).to_pylist()
    return finding(
        "warning", "gallery_image_unknown", lost, "gallery rows name images that do not exist", count
    )


def _repeated(table: pa.Table, columns: list[str]) -> pa.ChunkedArray:
    counted = table.select(columns).group_by(columns).aggregate([([], "count_all")])
    return counted.filter(pc.greater(counted["count_all"], 1))["image_id"]
