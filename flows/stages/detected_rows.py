"""The rows of `detections`, image by image: of blocks that were detected now, and of an earlier artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.row_tables import COORDINATES, corners
from flows.stages.detected_blocks import DETECTION, QUERY, ROWS_SCHEMA, TRUTH, ImageBlock, TestImages
from flows.stages.earlier import Earlier

_AT_ONCE = 256
"""Rows that are read of a block."""


class EarlierImages:
    """Where the rows of each image lie in an earlier artifact."""

    def __init__(self, earlier: Earlier) -> None:
        self.table = earlier.index(["image_id", "role", *COORDINATES, "score"])
        self.first, self._counts = _spans(self.table, earlier.images["image_id"])
        found = pc.equal(self.table["role"].cast(pa.string()), DETECTION).to_numpy()
        self._found_before = np.concatenate([[0], np.cumsum(found)])
        self._boxes = corners(self.table)

    def found(self, image: int) -> int:
        """Number of detections, which are the first of an image's rows."""
        first = self.first[image]
        return int(self._found_before[first + self._counts[image]] - self._found_before[first])

    def rows(self, image: int, wanted: TestImages, number: int) -> np.ndarray | None:
        """The rows of an image's detections and further boxes, as far as they are wanted of image `number`;
        None if one of these boxes is missing."""
        first, extra = self.first[image], wanted.extra(number)
        start, stop = first + self.found(image), first + self._counts[image]
        found = np.arange(first, start)[wanted.kept(number, self._boxes[first:start])]
        if np.array_equal(self._boxes[start:stop], extra):
            # In their order, although a query's box is a person's, too.
            return np.concatenate([found, np.arange(start, stop)])
        row_of = {box.tobytes(): row for row, box in enumerate(self._boxes[start:stop], start)}
        rows = [row_of.get(box.tobytes(), -1) for box in extra.astype(np.float32)]
        return None if -1 in rows else np.array([*found, *rows], np.int64)


def match_images(wanted: TestImages, earlier: Earlier) -> np.ndarray:
    """(images,) the number of the earlier image with the same content, which has all that is wanted of it:
    the detections, and rows of all query and ground-truth boxes. -1 where there is none."""
    there = EarlierImages(earlier)
    by_content: dict[str, list[int]] = {}
    for number, content in enumerate(earlier.images["content"].to_pylist()):
        by_content.setdefault(content, []).append(number)
    match = np.full(len(wanted), -1)
    for number, content in enumerate(wanted.contents):
        fits = (each for each in by_content.get(content, ()) if there.rows(each, wanted, number) is not None)
        match[number] = next(fits, -1)
    return match


def images_on(wanted: TestImages, earlier: Earlier, rows: range) -> np.ndarray:
    """A mask of the wanted images of which a row would be taken from these rows of the earlier artifact."""
    there = EarlierImages(earlier)
    taken = (
        there.rows(image, wanted, number) if image >= 0 else None
        for number, image in enumerate(earlier.match.tolist())
    )
    return np.array([each is not None and bool(np.isin(each, rows).any()) for each in taken])


@dataclass(frozen=True, eq=False)
class Joined:
    """The rows of all images, in order.

    table: ROWS_SCHEMA. taken: (rows,) the row of the earlier artifact; computed: (rows,) that of the blocks,
    one after another; -1 where the row is of the other.
    """

    table: pa.Table
    taken: np.ndarray
    computed: np.ndarray


def join(wanted: TestImages, blocks: Sequence[ImageBlock], earlier: Earlier | None) -> Joined:
    """The rows of blocks and of an earlier artifact, image by image."""
    tables = [ROWS_SCHEMA.empty_table(), *(pq.read_table(each.rows, schema=ROWS_SCHEMA) for each in blocks)]
    computed = pa.concat_tables(tables)
    names = pa.array([scene.image_id for scene in wanted.scenes], pa.string())
    first, counts = _spans(computed, names)
    spans = [np.arange(start, start + count) for start, count in zip(first, counts, strict=True)]
    is_old = np.zeros(len(wanted), bool)
    sources = [computed.select([*COORDINATES, "score"])]
    if earlier is not None:
        there = EarlierImages(earlier)
        sources.append(there.table.select([*COORDINATES, "score"]))
        is_old = earlier.match >= 0
        for number in np.flatnonzero(is_old).tolist():
            rows = there.rows(int(earlier.match[number]), wanted, number)
            assert rows is not None, "a match has all rows"
            spans[number] = rows
    sizes = [len(rows) for rows in spans]
    row = np.concatenate([np.empty(0, np.int64), *spans])
    of_old = np.repeat(is_old, sizes)
    boxes = pa.concat_tables(sources).take(pa.array(row + of_old * len(computed)))
    roles, box_ids = _roles_and_names(wanted, sizes)
    columns = {name: boxes[name] for name in (*COORDINATES, "score")} | {
        "row": pa.array(np.arange(len(row))),
        "role": roles,
        "image_id": names.take(pa.array(np.repeat(np.arange(len(wanted)), sizes))),
        "box_id": box_ids,
    }
    table = pa.table([columns[name] for name in ROWS_SCHEMA.names], schema=ROWS_SCHEMA)
    return Joined(table, np.where(of_old, row, -1), np.where(of_old, -1, row))


def write_joined(
    work: Path,
    joined: Joined,
    blocks: Sequence[ImageBlock],
    earlier: Earlier | None,
    *,
    row_shape: Sequence[int],
    dtype: str,
    compression: Any,
    attributes: Mapping[str, Any],
) -> str:
    """Write the feature store of all rows and return its digest. Raises DamagedRowsError."""
    from storage.feature_store import create_features, finish_features
    from storage.feature_store.taking_over import adopt_shards, fill_shards, missing_rows

    source = None if earlier is None else earlier.source
    with create_features(
        work, len(joined.table), row_shape, dtype, compression=compression, attributes=attributes
    ) as writer:
        done = set(writer.complete_shards)
        if source is not None:
            left = [shard for shard in range(writer.layout.n_shards) if shard not in done]
            done |= set(adopt_shards(writer, left, joined.taken, source))
        left = [shard for shard in range(writer.layout.n_shards) if shard not in done]
        computed = joined.computed[missing_rows(writer.layout, left, joined.taken)]
        for _ in fill_shards(writer, left, joined.taken, source, _rows_of(blocks, computed)):
            pass
    return finish_features(work)


def _rows_of(blocks: Sequence[ImageBlock], numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of the blocks, one after another, by their ascending numbers."""
    first = 0
    for block in blocks:
        pooled = np.load(block.pooled, mmap_mode="r")
        here = numbers[(numbers >= first) & (numbers < first + len(pooled))] - first
        for start in range(0, len(here), _AT_ONCE):
            yield pooled[here[start : start + _AT_ONCE]]
        first += len(pooled)


def _spans(rows: pa.Table, image_ids: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(first row, number of rows) of each image in a table whose rows go by these images."""
    number = pc.index_in(rows["image_id"], value_set=image_ids).to_numpy()
    counts = np.bincount(number, minlength=len(image_ids))
    return np.cumsum(counts) - counts, counts


def _roles_and_names(wanted: TestImages, sizes: Sequence[int]) -> tuple[pa.Array, pa.Array]:
    """Of all rows: detections, then queries, then ground-truth boxes, which alone have names."""
    roles: list[str] = []
    names: list[str | None] = []
    for number, (queries, size) in enumerate(zip(wanted.queries, sizes, strict=True)):
        box_ids = wanted.truth_ids(number)
        n_found = size - len(queries) - len(box_ids)
        roles += [DETECTION] * n_found + [QUERY] * len(queries) + [TRUTH] * len(box_ids)
        names += [*[None] * (n_found + len(queries)), *box_ids]
    return pa.array(roles, pa.string()).dictionary_encode(), pa.array(names, pa.string())
