"""What differs between two snapshots of a dataset: counts and examples of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.snapshot import Snapshot
from flows.compare.history import History
from storage.store import Artifact, Store

EXAMPLES = 3

_TABLES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "images": ("images", ("image_id",), ("split", "sha256", "width", "height", "camera_id")),
    "boxes": (
        "boxes",
        ("box_id",),
        ("image_id", "split", "x1", "y1", "x2", "y2", "ignore", "person_id"),
    ),
    "queries": ("queries", ("protocol", "query_id"), ("image_id", "x1", "y1", "x2", "y2", "person_id")),
}
"""What is counted: the table, the columns that name a row, and those that count as a change."""
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

    @property
    def differs(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True)
class DataDifference:
    """A dataset that differs; `counts` are by images, boxes, identities, cameras, queries.

    `note` says what there is to say where rows cannot be compared; then `counts` may be empty.
    """

    dataset: str
    before: str | None
    after: str | None
    """The snapshots, `ingest/KEY`; None where a side does not use the dataset."""
    note: str
    counts: dict[str, Counts]

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


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
    snapshots = before.artifact(dataset), after.artifact(dataset)
    names = before.snapshots[dataset], after.snapshots[dataset]
    gone = [name for name, artifact in zip(names, snapshots, strict=True) if artifact is None]
    if gone:
        note = f"the store no longer has {' and '.join(gone)}, so their rows cannot be compared"
        return [DataDifference(dataset, *names, note, {})]
    one, other = snapshots
    assert one is not None and other is not None
    if one.content_digest == other.content_digest:
        return []
    counts = compare_snapshots(_read(one, before.store), _read(other, after.store))
    differs = any(each.differs for each in counts.values())
    note = "" if differs else "only in columns that no stage uses, such as file names or rejected rows"
    return [DataDifference(dataset, *names, note, counts)]


def _read(artifact: Artifact, store: Store) -> Snapshot:
    return Snapshot(store.local_path(artifact.kind, artifact.key))


def compare_snapshots(before: Snapshot, after: Snapshot) -> dict[str, Counts]:
    """Images, boxes, identities, cameras and queries that were added, removed or changed."""
    found = {}
    for sort, (table, names, columns) in _TABLES.items():
        one, other = (each.table(table, [*names, *columns]) for each in (before, after))
        found[sort] = _compare_rows(one, other, names, columns)
    for sort, (table, column) in _SETS.items():
        one, other = (each.table(table, [column]) for each in (before, after))
        found[sort] = _compare_values(one[column], other[column])
    return found


def _compare_rows(before: pa.Table, after: pa.Table, names: Sequence[str], columns: Sequence[str]) -> Counts:
    old, new = (_row_names(each, names) for each in (before, after))
    place = pc.index_in(old, value_set=new)
    removed = old.filter(pc.is_null(place))
    added = new.filter(pc.is_null(pc.index_in(new, value_set=old)))
    kept = pc.is_valid(place)
    one, other = before.filter(kept), after.take(place.filter(kept))
    changed = pa.array([False] * len(one))
    for column in columns:
        changed = pc.or_(changed, _differ(_plain(one[column]), _plain(other[column])))
    names_changed = old.filter(kept).filter(changed)
    return Counts(
        len(before),
        len(after),
        len(added),
        len(removed),
        len(names_changed),
        _examples(added),
        _examples(removed),
        _examples(names_changed),
    )


def _compare_values(before: pa.ChunkedArray, after: pa.ChunkedArray) -> Counts:
    old, new = (set(_plain(each).drop_null().unique().to_pylist()) for each in (before, after))
    added, removed = sorted(new - old), sorted(old - new)
    first, gone = (tuple(map(str, each[:EXAMPLES])) for each in (added, removed))
    return Counts(len(old), len(new), len(added), len(removed), 0, first, gone)


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


def _examples(names: pa.Array) -> tuple[str, ...]:
    return tuple(map(str, names.slice(0, EXAMPLES).to_pylist()))
