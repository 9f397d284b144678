"""Splits by rule, for a dataset that brings none; see `rules.SplitRule`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError
from data_catalog.name_hashes import hash_names, mix
from data_catalog.row_tables import with_column, without_values
from data_catalog.rows import ADAPTER_IMAGES, Tables
from data_catalog.rules import LEFT_OUT, SplitRule
from data_catalog.schema import BOXES, GALLERY, QUERIES, REJECTS

SPOOL = "boxes.spool"
_BLOCK = 1 << 20
"""Boxes that get their split at once."""


@cache
def _empty() -> Tables:
    """Not at import: the first table loads pandas, which a plan does not need."""
    return Tables(*(schema.empty_table() for schema in (ADAPTER_IMAGES, BOXES, QUERIES, GALLERY, REJECTS)))


def split_again(parts: Iterable[Tables], rule: SplitRule, work: Path) -> Iterator[Tables]:
    """The parts with other splits: first everything but boxes, then these, in their order.

    Which split an image is in depends on all of them, so boxes wait in a file in `work`.

    Raises:
        CatalogError: when the dataset has splits that the rule does not name, or the rule does not fit it.
    """
    spool = work / SPOOL
    try:
        others, people = _spooled(parts, spool, with_people=rule.by == "identity")
        assigned = _assign(others.images, people, rule)
        yield replace(others, images=_with_splits(others.images, assigned.split_of_image, assigned.names))
        with pa.memory_map(str(spool)) as file, pa.ipc.open_stream(file) as reader:
            for boxes in _blocks(reader):
                yield replace(_empty(), boxes=assigned.apply(boxes))
    finally:
        spool.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Assigned:
    """Which of `names` each image has as its split; with identities, the part of each person."""

    image_ids: pa.Array
    names: list[str]
    split_of_image: np.ndarray
    pooled: np.ndarray
    people: pa.Array | None = None
    part_of_person: np.ndarray | None = None

    def apply(self, boxes: pa.Table) -> pa.Table:
        """Boxes in the splits of their images; with identities, those of another part become unknown."""
        image = pc.index_in(boxes["image_id"], value_set=self.image_ids)
        if image.null_count:
            stranger = boxes["image_id"].filter(pc.is_null(image))[0]
            raise CatalogError(f"there are boxes of image {stranger}, which the adapter never listed")
        at = image.to_numpy().astype(np.int64)
        boxes = _with_splits(boxes, self.split_of_image[at], self.names)
        if self.people is None or self.part_of_person is None:
            return boxes
        person = pc.index_in(boxes["person_id"], value_set=self.people)
        part = np.append(self.part_of_person, -1)[pc.fill_null(person, -1).to_numpy()]
        elsewhere = pa.array((part != self.split_of_image[at]) & self.pooled[at])
        return without_values(boxes, ("person_id", "person_scope"), elsewhere)


def _spooled(parts: Iterable[Tables], spool: Path, *, with_people: bool) -> tuple[Tables, pa.Table]:
    """Everything but boxes, which go to the file.

    Beside it, where it is asked for, every sighting of a known person: `person_id` and `image_id`.
    """
    kept: list[Tables] = []
    seen: list[pa.Table] = []
    with pa.OSFile(str(spool), "wb") as file, pa.ipc.new_stream(file, BOXES) as writer:
        for tables in parts:
            kept.append(replace(tables, boxes=_empty().boxes))
            writer.write_table(tables.boxes)
            if with_people:
                known = pc.and_(pc.is_valid(tables.boxes["person_id"]), pc.invert(tables.boxes["ignore"]))
                seen.append(tables.boxes.select(["person_id", "image_id"]).filter(known))
    empty = BOXES.empty_table().select(["person_id", "image_id"])
    whole = {
        each.name: pa.concat_tables(
            [getattr(_empty(), each.name), *(getattr(part, each.name) for part in kept)]
        )
        for each in fields(Tables)
    }
    others = Tables(**{name: table.unify_dictionaries() for name, table in whole.items()})
    return others, pa.concat_tables([empty, *seen])


def _blocks(reader: pa.ipc.RecordBatchStreamReader) -> Iterator[pa.Table]:
    """The batches, as tables of about `_BLOCK` rows."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in reader:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= _BLOCK:
            yield pa.Table.from_batches(waiting).unify_dictionaries()
            waiting, rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting).unify_dictionaries()


def _assign(images: pa.Table, people: pa.Table, rule: SplitRule) -> _Assigned:
    before = images["split"].cast(pa.string())
    pooled = _pooled(before, rule)
    names = [*rule.names, LEFT_OUT]
    others = [name for name in before.unique().to_pylist() if name not in rule.of] if rule.of else []
    clash = sorted(set(others) & set(names))
    if clash:
        raise CatalogError(
            f"splits: {clash[0]!r} is both a part and a split of the dataset that stays: give the part "
            "another name, or pool that split, too"
        )
    names += others
    split = pc.index_in(before, value_set=pa.array(names, pa.string()))
    result = pc.fill_null(split, 0).to_numpy().astype(np.int64)
    ids = images["image_id"].combine_chunks()
    chosen = images.filter(pa.array(pooled))
    persons: pa.Array | None = None
    part_of_person: np.ndarray | None = None
    if rule.by == "identity":
        inside = pc.is_in(people["image_id"], value_set=chosen["image_id"].combine_chunks())
        person = people["person_id"].filter(inside).combine_chunks().dictionary_encode()
        persons = person.dictionary
        part_of_person = _cut(hash_names(persons, rule.seed), persons, rule, "identities")
        image = pc.index_in(people["image_id"].filter(inside), value_set=chosen["image_id"].combine_chunks())
        result[pooled] = _by_identity(
            chosen, person.indices.to_numpy(), image.to_numpy().astype(np.int64), part_of_person, rule
        )
    elif rule.by == "sequence":
        result[pooled] = _by_sequence(chosen, rule)
    else:
        result[pooled] = _by_time(chosen, rule)
    _refuse_empty(result[pooled], rule)
    return _Assigned(ids, names, result, pooled, persons, part_of_person)


def _pooled(before: pa.ChunkedArray, rule: SplitRule) -> np.ndarray:
    """Which images are split again -> (n_images,)."""
    there = sorted(before.unique().to_pylist())
    unknown = [name for name in rule.of if name not in there]
    if unknown:
        raise CatalogError(f"splits: no images are in split {unknown[0]!r}; there is: {', '.join(there)}")
    if len(there) > 1 and not rule.of:
        raise CatalogError(
            f"splits: the dataset has splits already ({', '.join(there)}): leave the rule out, or name those "
            f"that are to be pooled and split again, such as of: [{', '.join(there)}]"
        )
    return np.asarray(pc.is_in(before, value_set=pa.array(rule.of or there, pa.string())))


def _by_sequence(images: pa.Table, rule: SplitRule) -> np.ndarray:
    code, names = _sequences(images, rule)
    return np.asarray(_cut(hash_names(names, rule.seed), names, rule, "sequences")[code])


def _by_time(images: pa.Table, rule: SplitRule) -> np.ndarray:
    code, _ = _sequences(images, rule)
    if images["frame_index"].null_count:
        raise CatalogError(
            f"splits: {images['frame_index'].null_count:,} images have no frame number, so they cannot be "
            "split by time: split by sequence or by identity"
        )
    frame = images["frame_index"].to_numpy().astype(np.int64)
    order = np.lexsort((frame, code))
    code, frame = code[order], frame[order]
    count = np.bincount(code)
    start = np.cumsum(count) - count
    share = (np.arange(len(code)) - start[code] + 0.5) / count[code]
    part = np.searchsorted(rule.borders, share, side="right")
    new = np.append(True, (np.diff(code) != 0) | (np.diff(part) != 0)) if len(code) else np.zeros(0, bool)
    first = frame[np.maximum.accumulate(np.where(new, np.arange(len(code)), 0))]
    in_gap = (part > 0) & (frame < first + rule.gap)
    result = np.empty(len(code), np.int64)
    result[order] = np.where(in_gap, len(rule.parts), part)
    return result


def _by_identity(
    images: pa.Table, person: np.ndarray, image: np.ndarray, part_of_person: np.ndarray, rule: SplitRule
) -> np.ndarray:
    """Where most of an image's identities are; of equals, and without any, the image's name decides."""
    n_parts = len(rule.parts)
    pairs = np.unique(np.stack([image, person.astype(np.int64)]), axis=1)
    votes = np.bincount(pairs[0] * n_parts + part_of_person[pairs[1]], minlength=len(images) * n_parts)
    votes = votes.reshape(len(images), n_parts)
    name = hash_names(images["image_id"], rule.seed)
    lots = np.stack([mix(name + np.uint64(part)) / 2.0**65 for part in range(n_parts)], axis=1)
    drawn = np.searchsorted(rule.borders, name / 2.0**64, side="right")
    return np.where(votes.any(axis=1), (votes + lots).argmax(axis=1), drawn)


def _sequences(images: pa.Table, rule: SplitRule) -> tuple[np.ndarray, pa.Array]:
    """The sequence of each image, as a number, and the names of all."""
    lacking = images["sequence_id"].null_count
    if lacking:
        raise CatalogError(
            f"splits: {lacking:,} images are in no sequence, so they cannot be split by {rule.by}: "
            "split by identity, or, without identities, put them into a folder for each split"
        )
    encoded = images["sequence_id"].cast(pa.string()).combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def _cut(numbers: np.ndarray, names: pa.Array, rule: SplitRule, what: str) -> np.ndarray:
    """The part of each name (n,): the names in the order of their numbers, cut where the shares say, so that
    each part has one at least.
    """
    n, n_parts = len(numbers), len(rule.parts)
    if n < n_parts:
        raise CatalogError(f"splits: {n} {what} cannot be shared out among {n_parts} parts")
    by_name = pc.rank(names, sort_keys="ascending").to_numpy()
    place = np.empty(n, np.int64)
    place[np.lexsort((by_name, numbers))] = np.arange(n)
    ends = np.floor(np.array(rule.borders) * n + 0.5).astype(np.int64)
    for border in range(n_parts - 1):
        lowest = ends[border - 1] + 1 if border else 1
        ends[border] = np.clip(ends[border], lowest, n - (n_parts - 1 - border))
    return np.searchsorted(ends, place, side="right")


def _refuse_empty(part: np.ndarray, rule: SplitRule) -> None:
    counts = np.bincount(part, minlength=len(rule.parts))
    for name, count in zip(rule.names, counts[: len(rule.parts)], strict=True):
        if not count:
            because = (
                f", of which a gap of {rule.gap} frames is left out: lower `gap`" if rule.by == "time" else ""
            )
            raise CatalogError(f"splits: the part {name!r} would have none of {len(part):,} images{because}")


def _with_splits(table: pa.Table, code: np.ndarray, names: list[str]) -> pa.Table:
    codes = pa.array(code.astype(np.int32))
    return with_column(table, "split", pa.DictionaryArray.from_arrays(codes, pa.array(names)))
