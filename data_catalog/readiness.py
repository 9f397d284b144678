"""What later stages need of a view, checked before anything is computed from it."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.views import View, protocol_view


def training_faults(view: View) -> Iterator[str]:
    """Why a detector cannot be trained on a view: none of its images shows a person."""
    if not pc.any(pc.invert(view.boxes["ignore"])).as_py():
        yield f"none of the {len(view.images):,} images of split {view.split!r} has a box of a person"


def identity_faults(view: View, per_batch: int) -> Iterator[str]:
    """Why a branch cannot be trained on a view: fewer identities with two boxes than a batch takes."""
    people, several = _people(view), identities_in_pairs(view)
    if not len(people):
        yield (
            f"no box of split {view.split!r} has an identity: re-ID needs a dataset with identities; this "
            "one can train the detector"
        )
    elif several < per_batch:
        yield (
            f"split {view.split!r} has {several:,} identities with two boxes or more, but a batch takes "
            f"{per_batch:,}: lower reid.identities_per_batch, or train on a larger view"
        )


def identities_in_pairs(view: View) -> int:
    """Number of identities with two boxes or more."""
    counts = _people(view)["person_id"].value_counts()
    return pc.sum(pc.greater_equal(counts.field("counts"), 2)).as_py() or 0


def _people(view: View) -> pa.Table:
    """The boxes that have an identity."""
    return view.boxes.filter(pc.and_(pc.invert(view.boxes["ignore"]), pc.is_valid(view.boxes["person_id"])))


def protocol_faults(view: View, protocol: str) -> Iterator[str]:
    """Why a protocol cannot be scored on a view: queries whose images are in another split or in none."""
    queries = protocol_view(view.snapshot, protocol).queries
    inside = pc.is_in(queries["image_id"], value_set=view.images["image_id"])
    outside = queries.filter(pc.invert(inside))
    if len(outside):
        yield (
            f"{len(outside):,} of the {len(queries):,} queries of protocol {protocol!r} are in images that "
            f"split {view.split!r} does not have, such as {outside['image_id'][0].as_py()!r}"
        )
