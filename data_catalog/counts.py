"""The counts of a snapshot: for the whole root and for each split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.schema import GALLERY, TABLES
from data_catalog.snapshot import ROW_GROUP, scan, table_path

COUNTED = ("images", "boxes", "boxes_with_id", "ids", "ignored", "rejects", "queries", "gallery")
"""`ids` are identities of people who are not ignore regions; `boxes` includes `ignored`."""


def count_rows(directory: Path, split_of_unit: Mapping[str, str]) -> dict[str, int]:
    """Counts by name: `boxes` for the whole root, `train.boxes` for a split.

    A reject belongs to the split of its image or else of its unit, a gallery row to that of its query.
    """
    images = _table(directory, "images", ["image_id", "split"])
    counts: Counter[tuple[str, str]] = Counter()
    for entry in images["split"].cast(pa.string()).value_counts():
        counts[entry["values"].as_py(), "images"] += entry["counts"].as_py()
    _count_boxes(directory, counts)
    _count_rejects(directory, images, split_of_unit, counts)
    split_of_query: dict[tuple[str, str], str] = {}
    queries = _table(directory, "queries", ["protocol", "query_id", "image_id"])
    at = pc.index_in(queries["image_id"], value_set=images["image_id"].combine_chunks())
    splits = images["split"].take(at).to_pylist()
    for row, split in zip(queries.to_pylist(), splits, strict=True):
        split_of_query[row["protocol"], row["query_id"]] = split
        counts[split, "queries"] += 1
    for protocol, query, number in _gallery_sizes(directory):
        counts[split_of_query.get((protocol, query), ""), "gallery"] += number
    return _by_name(counts, _distinct_ids(directory))


def by_split(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Counts by name (`boxes`, `train.boxes`) as rows: of the whole root and of each split."""
    splits = sorted({name.rpartition(".")[0] for name in counts} - {""})
    rows = {"whole root": {name: counts[name] for name in COUNTED}}
    return rows | {split: {name: counts[f"{split}.{name}"] for name in COUNTED} for split in splits}


def nested(counts: Mapping[str, int]) -> dict[str, object]:
    """{`boxes`: ..., `splits`: {`train`: {`boxes`: ...}}} of counts by name."""
    splits: dict[str, dict[str, int]] = {}
    for name, number in counts.items():
        split, _, counted = name.rpartition(".")
        if split:
            splits.setdefault(split, {})[counted] = number
    return {**{name: counts[name] for name in COUNTED}, "splits": splits}


def _by_name(counts: Mapping[tuple[str, str], int], ids: Mapping[str, set[str]]) -> dict[str, int]:
    splits = sorted({split for split, _ in counts if split} | set(ids))
    result = {name: sum(n for (_, counted), n in counts.items() if counted == name) for name in COUNTED}
    result["ids"] = len(set().union(*ids.values()))
    for split in splits:
        for name in COUNTED:
            result[f"{split}.{name}"] = counts.get((split, name), 0)
        result[f"{split}.ids"] = len(ids.get(split, ()))
    return result


def _count_boxes(directory: Path, counts: Counter[tuple[str, str]]) -> None:
    for batch in _batches(directory, ["split", "ignore", "person_id"]):
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


def _count_rejects(
    directory: Path, images: pa.Table, split_of_unit: Mapping[str, str], counts: Counter[tuple[str, str]]
) -> None:
    image_ids = images["image_id"].combine_chunks()
    split_of_image = images["split"].cast(pa.string()).combine_chunks()
    units = pa.array(list(split_of_unit), pa.string())
    split_of_source = pa.array(list(split_of_unit.values()), pa.string())
    columns = ["image_id", "source_unit"]
    for batch in scan(table_path(directory, "rejects"), TABLES["rejects"]).to_batches(columns=columns):
        unit = batch["source_unit"].cast(pa.string())
        split = pc.coalesce(
            split_of_image.take(pc.index_in(batch["image_id"], value_set=image_ids)),
            split_of_source.take(pc.index_in(unit, value_set=units)),
            "",
        )
        for entry in split.value_counts():
            counts[entry["values"].as_py(), "rejects"] += entry["counts"].as_py()


def _distinct_ids(directory: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    people = pc.field("person_id").is_valid() & ~pc.field("ignore")
    for batch in _batches(directory, ["split", "person_id"], people):
        pairs = pa.table({"split": batch["split"].cast(pa.string()), "person_id": batch["person_id"]})
        for row in pairs.group_by(["split", "person_id"]).aggregate([]).to_pylist():
            found.setdefault(row["split"], set()).add(row["person_id"])
    return found


def _gallery_sizes(directory: Path) -> Iterator[tuple[str, str, int]]:
    for path in sorted(table_path(directory, "gallery").glob("*.parquet")):
        table = scan(path, GALLERY).to_table(columns=["query_id"])
        for entry in table["query_id"].value_counts():
            yield path.stem, entry["values"].as_py(), entry["counts"].as_py()


def _batches(
    directory: Path, columns: list[str], filter: pc.Expression | None = None
) -> Iterator[pa.RecordBatch]:
    dataset = scan(table_path(directory, "boxes"), TABLES["boxes"])
    yield from dataset.to_batches(columns=columns, filter=filter, batch_size=ROW_GROUP)


def _table(directory: Path, name: str, columns: list[str]) -> pa.Table:
    return scan(table_path(directory, name), TABLES[name]).to_table(columns=columns)
