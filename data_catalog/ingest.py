"""From a dataset's root to a snapshot: read, check, write, count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from data_catalog.adapters.protocol import Adapter, Layout, Options, Unit
from data_catalog.counts import count_rows
from data_catalog.drawn_queries import draw_queries
from data_catalog.drawn_splits import split_again
from data_catalog.errors import CatalogError
from data_catalog.findings import Finding, finding, present
from data_catalog.fingerprint import DatasetRoot, Fingerprint, Progress, fingerprint
from data_catalog.forgotten import Forgetting
from data_catalog.hash_cache import HashCache
from data_catalog.leftovers import leftovers
from data_catalog.outcome import outcome_findings, refuse_outcome
from data_catalog.parallel import map_chunks, read_ahead
from data_catalog.query_boxes import join_queries
from data_catalog.reading import rows_of
from data_catalog.reuse import keep_unchanged, merged, unit_digest, write_units
from data_catalog.row_checks import RowChecks, rejected_images
from data_catalog.rows import LARGE, Rows, Tables
from data_catalog.rule_notes import rule_notes
from data_catalog.rules import NO_RULES, Rules
from data_catalog.snapshot import Snapshot, SnapshotWriter, counts_found, invalid_rejects

UNITS_A_CHUNK = 256
WHOLE = "the whole root"
LONG = 1 << 25
"""Bytes of annotation files in a chunk; a unit that has more is a chunk by itself, and read as a stream."""


@dataclass(frozen=True)
class Ingested:
    """The counts of a snapshot by name, such as `boxes` and `train.boxes`, and the digests of its tables'
    rows (see `SnapshotWriter.row_digests`).
    """

    counts: dict[str, int]
    row_digests: dict[str, list[str]]


def ingest(
    source: DatasetRoot,
    work: Path,
    found: Fingerprint,
    *,
    name: str,
    rules: Rules = NO_RULES,
    allow_empty: bool = False,
    dask_address: str | None = None,
    previous: Snapshot | None = None,
    progress: Progress | None = None,
) -> Ingested:
    """Write the snapshot of a source into `work`; `found` is its fingerprint.

    `previous` is an earlier snapshot of this root by the same adapter, version and options, and without
    rules, of all people or without those that are forgotten: what has not changed since is taken from it.
    `dask_address` is the address of an existing Dask scheduler; otherwise many files are read by local
    processes. A long file is read by this process in any case.

    Raises:
        CatalogError: when an annotation file cannot be read at all, an image is missing, the rules do not fit
            the dataset, or the outcome is empty or almost empty (see `outcome`) unless `allow_empty`.
    """
    root, adapter, units = source.root, source.adapter, found.layout.units
    digests = {
        unit.source: unit_digest(unit, found.annotations, found.images, source.read_of_images)
        for unit in units
    }
    kept = None if previous is None else keep_unchanged(previous, units, digests, found.images)
    fresh = units if kept is None else [unit for unit in units if unit.source not in kept.sources]
    chunks = _chunks(root, fresh)
    read = partial(read_units, adapter, root, options=dict(source.options), read_images=source.read_images)
    found_parts = map_chunks(read, chunks, dask_address, is_long=partial(_is_long, root))
    parts = _followed(read_ahead(found_parts), [len(chunk) for chunk in chunks], progress)
    if kept is not None:
        parts = merged(kept, parts, units)
    forgetting = Forgetting(source.forgotten)
    if source.forgotten:
        parts = forgetting.apply(parts)
    if rules.splits is not None:
        parts = split_again(parts, rules.splits, work)
    with SnapshotWriter(work, name) as writer:
        for tables in parts:
            writer.write(tables, _image_digests(tables, found) if source.read_images else None)
        images, queries = writer.images_and_queries()
        boxes = writer.close_boxes()
        joined = join_queries(boxes, images, queries)
        writer.write_rejects(joined.rejects)
        asked = joined.queries
        if rules.queries is not None:
            drawn = draw_queries(boxes, images, asked, rules.queries)
            asked = drawn.queries
            for rows in drawn.gallery:
                writer.write_gallery(rows)
        description = {
            "adapter": adapter.name,
            "adapter_version": adapter.version,
            "root_fingerprint": found.digest,
            "edition": found.layout.edition,
            "licence": found.layout.licence,
            "counts_expected": list(found.layout.expected.items()),
        }
        rules.write(work)
        gone = found.forgotten | forgetting.paths
        writer.finish(
            asked, lambda: {**description, **_what_was_found(work, root, found.layout, rules, gone)}
        )
    write_units(work, _of_rows(digests, Snapshot(work)) if forgetting.paths else digests)
    if not allow_empty:
        refuse_outcome(Snapshot(work))
    return Ingested(counts_found(Snapshot(work)), writer.row_digests())


def _of_rows(digests: Mapping[str, str], snapshot: Snapshot) -> dict[str, str]:
    """The digests of units that rows come from: the name of another may be that of a forgotten image.

    It is read again by the next ingest.
    """
    tables = (snapshot.table(name, ["source_unit"]) for name in ("images", "boxes", "queries", "rejects"))
    seen = {name for table in tables for name in table["source_unit"].unique().to_pylist()}
    return {source: digest for source, digest in digests.items() if source in seen}


def _what_was_found(
    work: Path, root: Path, layout: Layout, rules: Rules, forgotten: Set[str]
) -> dict[str, Any]:
    """The counts of the tables that are written, and what is odd about the root.

    `forgotten` are files of the root that are not to be named.
    """
    snapshot = Snapshot(work)
    splits = {unit.source: unit.split for unit in layout.units}
    counts = judged = count_rows(snapshot, splits if rules.splits is None else {})
    annotated = {unit.split for unit in layout.units if unit.annotated}
    images = snapshot.table("images", ["image_id", "split", "rel_path"])
    split_of_image = images.select(["image_id", "split"])
    if rules.splits is not None:  # a row that was refused is in no part, so the root is judged as a whole
        split_of_image = split_of_image.slice(0, 0)
        judged = {name: number for name, number in counts.items() if "." not in name}
        judged |= {f"{WHOLE}.{name}": number for name, number in judged.items()}
        splits, annotated = dict.fromkeys(splits, WHOLE), {WHOLE} if annotated else set()
    named = set(images["rel_path"].to_pylist()) | rejected_images(snapshot)
    bare = [unit.source for unit in layout.units if not unit.annotated and unit.split != "test"]
    what = "parts of the dataset are not annotated, though not of a test split: their images have no boxes"
    findings = [
        *outcome_findings(snapshot, judged, splits, annotated, split_of_image),
        *present([finding("warning", "not_annotated", bare, what)]),
        *leftovers(root, layout, named | forgotten),
        *(Finding("note", "format", 1, note) for note in layout.notes),
        *rule_notes(snapshot),
    ]
    return {"counts_found": list(counts.items()), "findings": [asdict(each) for each in findings]}


def _chunks(root: Path, units: Sequence[Unit]) -> list[list[Unit]]:
    """The units in order, as many at once as are small together."""
    chunks: list[list[Unit]] = []
    waiting = 0
    for unit in units:
        size = _size(root, [unit])
        if not chunks or len(chunks[-1]) >= UNITS_A_CHUNK or waiting + size > LONG:
            chunks.append([])
            waiting = 0
        chunks[-1].append(unit)
        waiting += size
    return chunks


def _is_long(root: Path, chunk: Sequence[Unit]) -> bool:
    return len(chunk) == 1 and _size(root, chunk) > LONG


def _size(root: Path, units: Sequence[Unit]) -> int:
    """Bytes of the units' annotation files; none where they are gone, which their reading will tell."""
    files = (root / name for unit in units if unit.has_file for name in (unit.source, *unit.also))
    return sum(path.stat().st_size for path in files if path.is_file())


def _followed(
    parts: Iterable[tuple[int, Tables]], sizes: Sequence[int], progress: Progress | None
) -> Iterator[Tables]:
    """The parts, each reported as the units of its chunk; `sizes` are how many these are."""
    done = list(accumulate(sizes))
    for index, tables in parts:
        yield tables
        if progress is not None:
            progress(done[index], done[-1])


def ingest_root(
    root: Path,
    adapter: Adapter,
    work: Path,
    *,
    options: Options | None = None,
    rules: Rules = NO_RULES,
    read_images: bool = True,
    allow_empty: bool = False,
) -> dict[str, int]:
    """Ingest a dataset at once, without caches: for tests and looks at a dataset.

    Parameters
    ----------
    root
        The dataset's root.
    adapter
        The adapter that reads it.
    work
        An empty folder for the snapshot.
    options
        The adapter's options.
    rules
        How splits are made and queries drawn, if not by the dataset.
    read_images
        Whether image files are read.
    allow_empty
        Whether to accept an outcome without images or boxes.

    Returns
    -------
    dict of str to int
        Counts such as `boxes` and `train.boxes`.

    Raises
    ------
    CatalogError
        If the root is not in the adapter's format, a file cannot be read, or the outcome is empty.

    Examples
    --------
    >>> ingest_root(root, load_adapter("prw"), work)["train.images"]
    6
    """
    source = DatasetRoot(root, adapter, options or {}, read_images)
    found = fingerprint(source, HashCache(None))
    return ingest(source, work, found, name=adapter.name, rules=rules, allow_empty=allow_empty).counts


def refuse_invalid(snapshot: Snapshot) -> None:
    """Raise CatalogError when the snapshot has damaged rows among its rejects."""
    damaged = invalid_rejects(snapshot)
    if len(damaged):
        first = damaged.slice(0, 1).to_pylist()[0]
        raise CatalogError(
            f"{len(damaged)} rows are damaged, the first at {first['source_file']}, "
            f"row {first['source_row']}: {first['code']}: {first['detail']}"
        )


def read_units(
    adapter: Adapter, root: Path, units: Sequence[Unit], *, options: Options, read_images: bool
) -> Iterator[Tables]:
    """The checked rows of some units; small ones together, long ones in parts.

    Where a unit is cut depends on itself alone: the order of its rows must not show what was read with it.
    """
    pending: list[Rows] = []
    check = RowChecks(root, options, read_images=read_images)
    waiting = 0
    for unit in units:
        of_unit = 0
        for rows in rows_of(adapter, root, unit, options, units):
            pending.append(rows)
            of_unit += rows.count()
            if of_unit >= LARGE:
                yield check.tables(pending)
                pending, of_unit, waiting = [], 0, 0
        waiting += of_unit
        if waiting >= LARGE:
            yield check.tables(pending)
            pending, waiting = [], 0
    if pending:
        yield check.tables(pending)


def _image_digests(tables: Tables, found: Fingerprint) -> list[str]:
    names = tables.images["rel_path"].to_pylist()
    unlisted = next((name for name in names if name not in found.images), None)
    if unlisted is not None:
        raise CatalogError(
            f"image {unlisted} is not among the images that the adapter found; check its folder"
        )
    return [found.images[name] for name in names]
