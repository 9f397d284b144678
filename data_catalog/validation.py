"""What is odd about a snapshot, or about several together: nothing here changes a row."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.duplicates import duplicate_images
from data_catalog.findings import EXAMPLES, Finding, finding, present
from data_catalog.published import Comparison, compare_published, counts_with_people
from data_catalog.rows import COORDINATES
from data_catalog.schema import SCOPE_DATASET
from data_catalog.snapshot import Snapshot, invalid_rejects

OTHER_THINGS = ("not_a_person", "category_unknown", "class_unknown")
"""Codes of rejects that are annotations of something else, or of what the file does not say."""
MOST_CATEGORIES = 10


def check_snapshot(snapshot: Snapshot) -> list[Finding]:
    """All findings about one snapshot, warnings first."""
    images = snapshot.table("images", ["image_id", "split", "width", "height", "sha256"])
    boxes = snapshot.table(
        "boxes", ["image_id", "split", "ignore", "person_id", "person_scope", *COORDINATES]
    )
    found = [
        *_counts(snapshot),
        *_published(snapshot),
        *nobody_found(snapshot),
        *damaged_rows(snapshot),
        _outside(boxes, images),
        _duplicate_boxes(boxes),
        _identity_twice(boxes),
        _identity_in_splits(boxes),
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
    text = "; ".join(differences) + edition
    return [Finding("note", "counts_differ", len(differences), f"not the whole published dataset: {text}")]


def _published(snapshot: Snapshot) -> list[Finding]:
    """Totals that differ from those of a publication, one finding for each."""
    differing: dict[str, list[Comparison]] = {}
    for each in compare_published(snapshot):
        if each.given != each.found:
            differing.setdefault(each.source, []).append(each)
    return [
        Finding("note", "not_as_published", len(totals), f"{source}: {'; '.join(map(str, totals))}")
        for source, totals in differing.items()
    ]


def damaged_rows(snapshot: Snapshot) -> list[Finding]:
    """What was left out because it is damaged."""
    details = invalid_rejects(snapshot)["detail"]
    what = "rows are damaged and left out (`personsearch datasets rejects` lists them)"
    return present([finding("warning", "damaged_rows", details, what)])


def nobody_found(snapshot: Snapshot) -> list[Finding]:
    """For each split that has annotations and no person among them: of what these are instead."""
    counts = dict(snapshot.table("datasets", ["counts_found"])["counts_found"][0].as_py())
    splits = [name.removesuffix(".boxes") for name, n in counts.items() if name.endswith(".boxes") and not n]
    empty = [split for split in splits if counts.get(f"{split}.rejects", 0)]
    if not empty:
        return []
    images = snapshot.table("images", ["split", "source_unit"])
    units = images.group_by(["source_unit", "split"]).aggregate([]).to_pylist()
    of_others = pc.field("code").isin(OTHER_THINGS)
    rejects = snapshot.table("rejects", ["source_unit", "detail"], of_others)
    counted = rejects.group_by(["source_unit", "detail"]).aggregate([([], "count_all")]).to_pylist()
    found = []
    for split in empty:
        sources = {unit["source_unit"] for unit in units if unit["split"] == split}
        kinds: Counter[str] = Counter()
        for row in counted:
            kinds[row["detail"]] += row["count_all"] if row["source_unit"] in sources else 0
        names = [kind for kind, number in kinds.most_common(MOST_CATEGORIES) if number]
        what = f"annotations of {split} and none of a person; name the categories that are; found"
        if total := kinds.total():
            text = f"{total:,} {what}: {', '.join(names)}"
            found.append(Finding("warning", "nobody_found", total, text))
    return found


def _outside(boxes: pa.Table, images: pa.Table) -> Finding:
    at = pc.index_in(boxes["image_id"], value_set=images["image_id"].combine_chunks())
    width, height = (images[name].take(at) for name in ("width", "height"))
    low = pc.or_(pc.less(boxes["x1"], 0), pc.less(boxes["y1"], 0))
    high = pc.or_(pc.greater(boxes["x2"], width), pc.greater(boxes["y2"], height))
    leaves = pc.fill_null(pc.or_kleene(low, high), False)
    return finding(
        "note",
        "box_leaves_image",
        boxes["image_id"].filter(leaves),
        "boxes leave their image (kept unclipped)",
    )


def _duplicate_boxes(boxes: pa.Table) -> Finding:
    return finding(
        "warning",
        "box_twice",
        _repeated(boxes, ["image_id", *COORDINATES]),
        "boxes are there twice with equal corners in one image",
    )


def _identity_twice(boxes: pa.Table) -> Finding:
    known = boxes.filter(pc.is_valid(boxes["person_id"]))
    return finding(
        "note",
        "identity_twice_in_image",
        _repeated(known, ["image_id", "person_id"]),
        "times an identity has two boxes in one image",
    )


def _identity_in_splits(boxes: pa.Table) -> Finding:
    dataset_wide = boxes.filter(
        pc.and_(
            pc.is_valid(boxes["person_id"]),
            pc.equal(pc.fill_null(boxes["person_scope"].cast(pa.string()), ""), SCOPE_DATASET),
        )
    )
    plain = pa.table({"id": dataset_wide["person_id"], "split": dataset_wide["split"].cast(pa.string())})
    splits = plain.group_by("id").aggregate([("split", "count_distinct")])
    shared = splits.filter(pc.greater(splits["split_count_distinct"], 1))["id"]
    return finding("warning", "identity_in_two_splits", shared, "identities are in more than one split")


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
        "warning", "gallery_image_unknown", lost, "gallery rows name images that are not there", count
    )


def _repeated(table: pa.Table, columns: list[str]) -> pa.ChunkedArray:
    counted = table.select(columns).group_by(columns).aggregate([([], "count_all")])
    return counted.filter(pc.greater(counted["count_all"], 1))["image_id"]
