"""Annotations whose file gives them an id that another has: they are kept, each named by its row, too."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.findings import Finding, finding
from data_catalog.snapshot import Snapshot

_WITH_ROW = r"#[^#]*@[0-9]+$"


def with_row(ids: pa.Array, rows: pa.Array) -> pa.Array:
    """Names of boxes for ids that are there already."""
    return pc.binary_join_element_wise(ids, rows.cast(pa.string()), "@")


def repeated_ids(snapshot: Snapshot) -> Finding:
    """How many boxes `with_row` has named, and some of them."""
    may_be = pc.match_substring_regex(pc.field("box_id"), _WITH_ROW)
    boxes = snapshot.table("boxes", ["box_id", "source_row"], may_be)
    row = pc.replace_substring_regex(boxes["box_id"], r"^.*@", "")
    named = boxes["box_id"].filter(pc.equal(row, boxes["source_row"].cast(pa.string())))
    what = "annotations share their id with another one of their file (kept, and named by their row, too)"
    return finding("warning", "annotation_id_twice", named, what)
