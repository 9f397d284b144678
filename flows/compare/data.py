"""What differs between two snapshots of a dataset: counts and examples of rows."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.row_digests import digest_rows
from data_catalog.row_tables import COORDINATES
from data_catalog.snapshot import Snapshot
from flows.compare.history import History

EXAMPLES = 3

_ROWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "images": (("image_id",), ("split", "sha256", "width", "height", "camera_id")),
    "boxes": (("box_id",), ("image_id", "split", *COORDINATES, "ignore", "person_id")),
    "queries": (("protocol", "query_id"), ("image_id", *COORDINATES, "person_id")),
}
"""The tables whose rows are counted: the columns that name a row, and those that count as a change."""
_SETS = {"identities": ("boxes", "person_id"), "cameras": ("images", "camera_id")}
"""What is counted as distinct values of a column."""


@dataclass(frozen=True)
class Counts:
    """Rows of one sort that differ, with examples; `before` and `after` are how many there are."""

    before: int
    after: int
    added: int
    removed: int
    changed: int
    added_examples: tuple[str, ...] = ()
    removed_examples: tuple[str, ...] = ()
    changed_examples: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        before: Sized,
        after: Sized,
        added: Sequence[Any],
        removed: Sequence[Any],
        changed: Sequence[Any] = (),
    ) -> Counts:
        """From the rows, and the names of those that differ."""
        first, gone, other = (tuple(map(str, each[:EXAMPLES])) for each in (added, removed, changed))
        numbers = (len(added), len(removed), len(changed))
        return cls(len(before), len(after), *numbers, first, gone, other)

    @property
    def differs(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True)
class DataDifference:
    """A dataset that differs; `counts` are by images, boxes, queries, identities, cameras, galleries.

    `note` says what there is to say where rows cannot be compared; then `counts` may be empty.
    """

    dataset: str
    before: str | None
    after: str | None
    """The snapshots, `ingest/KEY`; None where a side does not use the dataset."""
    note: str
    counts: dict[str, Counts]


def data_differences(before: History, after: History) -> list[DataDifference]:
    """The datasets whose content differs, or that only one side uses, by name."""
    found = []
    for dataset in sorted(before.snapshots.keys() | after.snapshots.keys()):
        one, other = before.snapshots.get(dataset), after.snapshots.get(dataset)
        if one is None or other is None:
            which = "B" if one is None else "A"
            found.append(DataDifference(dataset, one, other, f"only {which} uses it", {}))
        elif one != other:
            found += _difference(dataset, before, after)
    for side, history in (("A", before), ("B", after)):
        for dataset, name in history.then.items():
            text = f"the model of {side} was trained on an earlier snapshot, {name}"
            found.append(DataDifference(dataset, name, history.snapshots[dataset], text, {}))
    return found


def _difference(dataset: str, before: History, after: History) -> list[DataDifference]:
    """Nothing where two snapshots hold the same rows, read by another version or from another root."""
    names, store = (before.snapshots[dataset], after.snapshots[dataset]), before.store
    made = [store.named(name) for name in names]
    gone = [name for name, artifact in zip(names, made, strict=True) if artifact is None]
    if gone:
        note = f"the store no longer has {' and '.join(gone)}, so their rows cannot be compared"
        return [DataDifference(dataset, *names, note, {})]
    if len({artifact and artifact.content_digest for artifact in made}) == 1:
        return []
    counts = compare_snapshots(*(Snapshot(store.local_path(*name.split("/"))) for name in names))
    differs = any(each.differs for each in counts.values())
    note = "" if differs else "only in columns that no stage uses, such as file names or rejected rows"
    return [DataDifference(dataset, *names, note, counts)]


def compare_snapshots(before: Snapshot, after: Snapshot) -> dict[str, Counts]:
    """What was added, removed or changed; galleries by the protocols that they are of."""
    found = {}
    for table, (names, columns) in _ROWS.items():
        one, other = (each.table(table, [*names, *columns]) for each in (before, after))
        found[table] = _compare_rows(one, other, names, columns)
    for sort, (table, column) in _SETS.items():
        old, new = (_values(each.table(table, [column])[column]) for each in (before, after))
        found[sort] = Counts.of(old, new, sorted(new - old), sorted(old - new))
    one, other = (
        {name: digest_rows(each.gallery(name)) for name in each.protocols()} for each in (before, after)
    )
    changed = [name for name in one if other.get(name, one[name]) != one[name]]
    added, removed = sorted(other.keys() - one.keys()), sorted(one.keys() - other.keys())
    found["galleries"] = Counts.of(one, other, added, removed, changed)
    return found


def _compare_rows(before: pa.Table, after: pa.Table, names: Sequence[str], columns: Sequence[str]) -> Counts:
    old, new = (_row_names(each, names) for each in (before, after))
    place = pc.index_in(old, value_set=new)
    kept = pc.is_valid(place)
    one, other = before.filter(kept), after.take(place.filter(kept))
    changed = pa.array([False] * len(one))
    for column in columns:
        changed = pc.or_(changed, _differ(_plain(one[column]), _plain(other[column])))
    added = new.filter(pc.is_null(pc.index_in(new, value_set=old)))
    return Counts.of(before, after, added, old.filter(pc.is_null(place)), old.filter(kept).filter(changed))


def _values(column: pa.ChunkedArray) -> set[Any]:
    return set(_plain(column).drop_null().unique().to_pylist())


def _row_names(table: pa.Table, names: Sequence[str]) -> pa.Array:
    columns = [_plain(table[name]) for name in names]
    return columns[0] if len(columns) == 1 else pc.binary_join_element_wise(*columns, "/")


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """One array, as text where it is a dictionary."""
    plain = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
    return plain.combine_chunks()


def _differ(one: pa.Array, other: pa.Array) -> pa.Array:
    """Whether values differ, row by row; two unknown values do not."""
    both = pc.fill_null(pc.not_equal(one, other), False)
    return pc.or_(both, pc.xor(pc.is_null(one), pc.is_null(other)))
