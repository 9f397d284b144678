"""An empty or nearly empty outcome of an ingest is an error: a training would take people for background."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.counts import splits_of_rejects
from data_catalog.errors import CatalogError
from data_catalog.findings import Finding
from data_catalog.schema import INVALID
from data_catalog.snapshot import Snapshot, ingest_findings

CODE = "outcome"
MOST_DAMAGED = 0.5
OF_IMAGES = ("image_unreadable", "image_path")
"""Codes of rejects that are images, not rows of an image; each of these is a reject of its own."""
OTHER_THINGS = ("not_a_person", "category_unknown", "class_unknown")
"""Codes of rejects that are annotations of something else, or of what the file does not say."""
MOST_CATEGORIES = 10


def outcome_findings(
    snapshot: Snapshot,
    counts: Mapping[str, int],
    split_of_unit: Mapping[str, str],
    annotated: Collection[str],
    split_of_image: pa.Table,
) -> list[Finding]:
    """A snapshot without images, a split with images and no box, and one more than half of whose rows, or of
    whose images, are damaged.

    `counts` are by name, as `counts.count_rows` gives them; `annotated` are the splits whose images are
    annotated at all. `split_of_image` has image_id and split; a reject of no such image is of its unit's.
    """
    columns = ["severity", "code", "image_id", "source_unit", "source_file", "source_row", "detail"]
    rejects = snapshot.table("rejects", columns)
    rejects = rejects.append_column("split", splits_of_rejects(rejects, split_of_image, split_of_unit))
    return [Finding("warning", CODE, 1, text) for text in _faults(rejects, counts, annotated)]


def outcome_faults(snapshot: Snapshot) -> list[str]:
    """What is wrong with a snapshot that its ingest found empty or damaged, and what to do."""
    faults = [finding.message for finding in ingest_findings(snapshot) if finding.code == CODE]
    if not faults:
        return []
    what_to_do = (
        "Correct the root, the adapter or its options; if this is how the dataset is meant, pass "
        "--allow-empty, or set allow_empty: true for it in the config"
    )
    return [f"{snapshot.name}: {'; '.join(faults)}. {what_to_do}"]


def refuse_outcome(snapshot: Snapshot) -> None:
    """Raise CatalogError for a snapshot that its ingest found empty or damaged."""
    for fault in outcome_faults(snapshot):
        raise CatalogError(fault)


def _faults(rejects: pa.Table, counts: Mapping[str, int], annotated: Collection[str]) -> Iterator[str]:
    damaged = rejects.filter(pc.equal(rejects["severity"].cast(pa.string()), INVALID))
    if not counts["images"]:
        yield "the root yields no image" + (f": {_first(damaged)}" if len(damaged) else "")
        return
    is_image = pc.is_in(damaged["code"].cast(pa.string()), value_set=pa.array(OF_IMAGES))
    lost, damaged = damaged.filter(is_image), damaged.filter(pc.invert(is_image))
    for split in sorted({name.rpartition(".")[0] for name in counts} - {""}):
        images, boxes, refused = (counts.get(f"{split}.{name}", 0) for name in ("images", "boxes", "rejects"))
        bad, bad_images = _of_split(damaged, split), _of_split(lost, split)
        rows = boxes + refused - len(bad_images)
        if len(bad) > MOST_DAMAGED * rows:
            yield f"{len(bad):,} of the {rows:,} rows of split {split!r} are damaged, such as {_first(bad)}"
        elif len(bad_images) > MOST_DAMAGED * (images + len(bad_images)):
            share = f"{len(bad_images):,} of the {images + len(bad_images):,} images of split {split!r}"
            yield f"{share} are damaged, such as {_first(bad_images)}"
        elif images and not boxes and split in annotated:
            others = _other_things(_of_split(rejects, split))
            yield f"split {split!r} has {images:,} images and no box of a person{others}"


def _of_split(rejects: pa.Table, split: str) -> pa.Table:
    return rejects.filter(pc.equal(rejects["split"], split))


def _other_things(rejects: pa.Table) -> str:
    """What the annotations of a split without people are of, most frequent first."""
    others = rejects.filter(pc.is_in(rejects["code"].cast(pa.string()), value_set=pa.array(OTHER_THINGS)))
    if not len(others):
        return ""
    counted = others["detail"].value_counts().to_pylist()
    counted.sort(key=lambda each: -each["counts"])
    names = ", ".join(each["values"] for each in counted[:MOST_CATEGORIES])
    return (
        f", but {len(others):,} annotations of something else ({names}): name the categories of people by "
        "the adapter's option (categories or classes)"
    )


def _first(rejects: pa.Table) -> str:
    row = rejects.slice(0, 1).to_pylist()[0]
    return f"{row['source_file']}, row {row['source_row']}: {row['detail']}"
