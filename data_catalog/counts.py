"""The counts of a snapshot: for the whole root and for each split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.schema import GALLERY
from data_catalog.snapshot import ROW_GROUP, Snapshot, scan, table_path

COUNTED = ("images", "boxes", "boxes_with_id", "ids", "ignored", "rejects", "queries", "gallery")
"""`ids` are identities of people who are not ignore regions; `boxes` includes `ignored`."""


def count_rows(snapshot: Snapshot, split_of_unit: Mapping[str, str]) -> dict[str, int]:
    """Counts by name: `boxes` for the whole root, `train.boxes` for a split.

    A reject belongs to the split of its image or else of its unit, a gallery row to that of its query.
    """
    images = snapshot.table("images", ["image_id", "split"])
    counts: Counter[tuple[str, str]] = Counter()
    for entry in images["split"].cast(pa.string()).value_counts():
        counts[entry["values"].as_py(), "images"] += entry["counts"].as_py()
    _count_boxes(snapshot, counts)
    _count_rejects(snapshot, images, split_of_unit, counts)
    split_of_query: dict[tuple[str, str], str] = {}
    queries = snapshot.table("queries", ["protocol", "query_id", "image_id"])
    at = pc.index_in(queries["image_id"], value_set=images["image_id"].combine_chunks())
    splits = images["split"].take(at).to_pylist()
    for row, split in zip(queries.to_pylist(), splits, strict=True):
        split_of_query[row["protocol"], row["query_id"]] = split
        counts[split, "queries"] += 1
    for protocol, query, number in _gallery_sizes(snapshot):
        counts[split_of_query.get((protocol, query), ""), "gallery"] += number
    return _by_name(counts, _distinct_ids(snapshot))


def by_split(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Counts by name (`boxes`, `train.boxes`) as rows: of the whole root and of each split."""
    splits = sorted({name.rpartition(".")[0] for name in counts} - {""})
    rows = {"whole root": {name: counts[name] for name in COUNTED}}
    return rows | {split: {name: counts[f"{split}.{name}"] for name in COUNTED} for split in splits}


def nested(counts: Mapping[str, int]) -> dict[str, object]:
    """{`boxes`: ..., `splits`: {`train`: {`boxes`: ...}}} of counts by name."""
    splits = by_split(counts)
    return {**splits.pop("whole root"), "splits": splits}


def _by_name(counts: Mapping[tuple[str, str], int], ids: Mapping[str, set[str]]) -> dict[str, int]:
    splits = sorted({split for split, _ in counts if split} | set(ids))
    result = {name: sum(n for (_, counted), n in counts.items() if counted == name) for name in COUNTED}
    result["ids"] = len(set().union(*ids.values()))
    for split in splits:
        for name in COUNTED:
            result[f"{split}.{name}"] = counts.get((split, name), 0)
        result[f"{split}.ids"] = len(ids.get(split, ()))
    return result


def _count_boxes(snapshot: Snapshot, counts: Counter[tuple[str, str]]) -> None:
    for batch in _batches(snapshot, ["split", "ignore", "person_id"]):
        plain = pa.table(
            {
                "split": batch["split"].cast(pa.string()),
                "ignored": batch["ignore"].cast(pa.int64()),
                "with_id": pc.is_valid(batch["person_id"]).cast(pa.int64()),
            }
        )
        sums = plain.group_by("split").aggregate([("ignored", "sum"), ("with_id", "sum"), ([], "count_all")])
        for row in sums.to_pylist():
            counts[row["split"], "boxes"] += row["count_all"]
            counts[row["split"], "boxes_with_id"] += row["with_id_sum"]
            counts[row["split"], "ignored"] += row["ignored_sum"]


def splits_of_rejects(
    rejects: pa.Table | pa.RecordBatch, images: pa.Table, split_of_unit: Mapping[str, str]
) -> pa.Array | pa.ChunkedArray:
    """The split of each reject: that of its image or else of its unit; null where neither is known.

    `images` has image_id and split.
    """
    at = pc.index_in(rejects["image_id"], value_set=images["image_id"].combine_chunks())
    of_image = images["split"].cast(pa.string()).combine_chunks().take(at)
    units = pa.array(list(split_of_unit), pa.string())
    unit = pc.index_in(rejects["source_unit"].cast(pa.string()), value_set=units)
    return pc.coalesce(of_image, pa.array(list(split_of_unit.values()), pa.string()).take(unit))


def _count_rejects(
    snapshot: Snapshot, images: pa.Table, split_of_unit: Mapping[str, str], counts: Counter[tuple[str, str]]
) -> None:
    for batch in snapshot.dataset("rejects").to_batches(columns=["image_id", "source_unit"]):
        splits = pc.fill_null(splits_of_rejects(batch, images, split_of_unit), "")
        for entry in splits.value_counts():
            counts[entry["values"].as_py(), "rejects"] += entry["counts"].as_py()


def _distinct_ids(snapshot: Snapshot) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    people = pc.field("person_id").is_valid() & ~pc.field("ignore")
    for batch in _batches(snapshot, ["split", "person_id"], people):
        pairs = pa.table({"split": batch["split"].cast(pa.string()), "person_id": batch["person_id"]})
        for row in pairs.group_by(["split", "person_id"]).aggregate([]).to_pylist():
            found.setdefault(row["split"], set()).add(row["person_id"])
    return found


def _gallery_sizes(snapshot: Snapshot) -> Iterator[tuple[str, str, int]]:
    for path in sorted(table_path(snapshot.path, "gallery").glob("*.parquet")):
        table = scan(path, GALLERY).to_table(columns=["query_id"])
        for entry in table["query_id"].value_counts():
            yield path.stem, entry["values"].as_py(), entry["counts"].as_py()


def _batches(
    snapshot: Snapshot, columns: list[str], filter: pc.Expression | None = None
) -> Iterator[pa.RecordBatch]:
    yield from snapshot.dataset("boxes").to_batches(columns=columns, filter=filter, batch_size=ROW_GROUP)
