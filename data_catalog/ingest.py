"""From a dataset's root to a snapshot: fingerprint, read, check, write, count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.adapters.protocol import Adapter, Layout, Options, Unit, check_options
from data_catalog.counts import count_rows
from data_catalog.errors import CatalogError
from data_catalog.files import path_fault, suspicious
from data_catalog.hash_cache import HashCache
from data_catalog.images import Unreadable, read_header
from data_catalog.parallel import cores, map_chunks, read_ahead
from data_catalog.query_boxes import join_queries
from data_catalog.reuse import keep_unchanged, merged, unit_digest, write_units
from data_catalog.rows import LARGE, Rows, Tables, to_tables
from data_catalog.schema import INVALID, REJECTS
from data_catalog.snapshot import Snapshot, SnapshotWriter, invalid_rejects

UNITS_A_CHUNK = 256
LONG = 1 << 25
"""Bytes of annotation files in a chunk; a unit that has more is a chunk by itself, and read as a stream."""

Progress = Callable[[int, int], None]
_Look = tuple[tuple[str, str] | None, tuple[int, int] | None]


@dataclass(frozen=True)
class ImageUse:
    """What is done with image files: nothing, reading their headers, or decoding them whole."""

    read: bool = True
    decode: bool = False

    @property
    def label(self) -> str:
        """What goes into the fingerprint, since it decides on the rows."""
        return "none" if not self.read else "decoded" if self.decode else "headers"


ALL_IMAGES = ImageUse()


@dataclass(frozen=True)
class Ingested:
    """The counts of a snapshot by name, such as `boxes` and `train.boxes`, and the digests of its tables'
    rows (see `SnapshotWriter.row_digests`).
    """

    counts: dict[str, int]
    row_digests: dict[str, list[str]]


@dataclass(frozen=True)
class Fingerprint:
    """What a root holds, by content. `images` maps their names to SHA-256; it is empty where they are left
    out.
    """

    digest: str
    layout: Layout
    annotations: Mapping[str, str]
    images: Mapping[str, str]


def fingerprint(
    root: Path,
    adapter: Adapter,
    options: Options,
    hash_cache: HashCache,
    *,
    use: ImageUse = ALL_IMAGES,
    rehash: bool = False,
    progress: Progress | None = None,
) -> Fingerprint:
    """Digest of everything that an ingest of `root` would read; cheap when nothing changed since the last
    time.

    `rehash` ignores the stat cache.

    Raises:
        CatalogError: when the root is not of the adapter's format, a file is missing, or the adapter cannot
            do without the images that `use` leaves out.
    """
    check_options(adapter, options)
    if getattr(adapter, "needs_images", False) and not use.read:
        raise CatalogError(
            f"adapter {adapter.name!r} takes sizes from the images: they cannot be left out (--no-images)"
        )
    layout = adapter.discover(root, options)
    _refuse_same_source(adapter, layout)
    names = {unit.source for unit in layout.units if unit.has_file} | {
        name for unit in layout.units for name in unit.also
    }
    annotations = hash_cache.digests(root, sorted(names | set(layout.shared)), rehash=rehash)
    pictures = sorted({name for unit in layout.units for name in unit.images} | set(layout.images))
    images = hash_cache.digests(root, pictures, rehash=rehash, progress=progress) if use.read else {}
    total = hashlib.sha256(use.label.encode())
    for part in (annotations, images or dict.fromkeys(pictures, "")):
        total.update(json.dumps(sorted(part.items())).encode("utf-8", "surrogatepass"))
    return Fingerprint(total.hexdigest(), layout, annotations, images)


def _refuse_same_source(adapter: Adapter, layout: Layout) -> None:
    """Units are told apart by their source, so that two of one name would lose rows."""
    seen: set[str] = set()
    for unit in layout.units:
        if unit.source in seen:
            raise CatalogError(
                f"adapter {adapter.name!r}: two units have the source {unit.source}; give each its own"
            )
        seen.add(unit.source)


def ingest(
    root: Path,
    adapter: Adapter,
    work: Path,
    found: Fingerprint,
    *,
    name: str,
    options: Options | None = None,
    use: ImageUse = ALL_IMAGES,
    strict: bool = False,
    dask_address: str | None = None,
    previous: Snapshot | None = None,
    progress: Progress | None = None,
) -> Ingested:
    """Write the snapshot of `root` into `work`.

    `previous` is an earlier snapshot of this root by the same adapter, version and options: what has not
    changed since is taken from it. `dask_address` is the address of an existing Dask scheduler; otherwise
    many files are read by local processes. A long file is read by this process in any case.

    Raises:
        CatalogError: when an annotation file cannot be read at all, an image is missing, or, with `strict`,
            when any row is damaged.
    """
    options = dict(options or {})
    units = found.layout.units
    digests = {unit.source: unit_digest(unit, found.annotations, found.images, use.label) for unit in units}
    kept = None if previous is None else keep_unchanged(previous, units, digests, found.images)
    fresh = units if kept is None else [unit for unit in units if unit.source not in kept.sources]
    chunks = _chunks(root, fresh)
    read = partial(read_units, adapter, root, options=options, use=use)
    found_parts = map_chunks(read, chunks, dask_address, is_long=partial(_is_long, root))
    parts = _followed(read_ahead(found_parts), [len(chunk) for chunk in chunks], progress)
    if kept is not None:
        parts = merged(kept, parts, units)
    with SnapshotWriter(work, name) as writer:
        for tables in parts:
            writer.write(tables, _image_digests(tables, found, use))
        images, queries = writer.images_and_queries()
        joined = join_queries(writer.close_boxes(), images, queries)
        writer.write_rejects(joined.rejects)
        description = {
            "adapter": adapter.name,
            "adapter_version": adapter.version,
            "root_fingerprint": found.digest,
            "edition": found.layout.edition,
            "licence": found.layout.licence,
            "counts_expected": list(found.layout.expected.items()),
        }
        splits = {unit.source: unit.split for unit in units}
        writer.finish(
            joined.queries, lambda: {**description, "counts_found": list(count_rows(work, splits).items())}
        )
    write_units(work, digests)
    if strict:
        refuse_invalid(Snapshot(work))
    return Ingested(counts_found(Snapshot(work)), writer.row_digests())


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
    root: Path, adapter: Adapter, work: Path, *, options: Options | None = None, use: ImageUse = ALL_IMAGES
) -> dict[str, int]:
    """Fingerprint and ingest `root` at once, without caches: for tests and looks at a dataset."""
    found = fingerprint(root, adapter, options or {}, HashCache(None), use=use)
    return ingest(root, adapter, work, found, name=adapter.name, options=options, use=use).counts


def counts_found(snapshot: Snapshot) -> dict[str, int]:
    """The counts that the ingest wrote into the snapshot."""
    return dict(snapshot.table("datasets", ["counts_found"])["counts_found"][0].as_py())


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
    adapter: Adapter, root: Path, units: Sequence[Unit], *, options: Options, use: ImageUse
) -> Iterator[Tables]:
    """The checked rows of some units; small ones together, long ones in parts.

    Where a unit is cut depends on itself alone: the order of its rows must not show what was read with it.
    """
    pending: list[Rows] = []
    dropped: list[pa.Array] = []
    waiting = 0
    for unit in units:
        of_unit = 0
        for rows in adapter.read(root, unit, options):
            rows.source_unit = unit.source
            pending.append(rows)
            of_unit += rows.count()
            if of_unit >= LARGE:
                yield _checked(pending, root, use, dropped)
                pending, of_unit, waiting = [], 0, 0
        waiting += of_unit
        if waiting >= LARGE:
            yield _checked(pending, root, use, dropped)
            pending, waiting = [], 0
    if pending:
        yield _checked(pending, root, use, dropped)


def _checked(parts: list[Rows], root: Path, use: ImageUse, dropped: list[pa.Array]) -> Tables:
    """The parts as tables, without images that cannot be used; their boxes go to the rejects."""
    tables = to_tables(parts)
    sources = [rows for rows in parts for _ in range(rows.image_count())]
    images, faults = _usable_images(tables.images, root, use)
    rejects = [tables.rejects]
    if faults:
        dropped.append(tables.images["image_id"].take(pa.array(list(faults))).combine_chunks())
        rejects.append(_image_rejects(tables.images, faults, sources))
    boxes = tables.boxes
    if dropped and len(boxes):
        lost = pc.is_in(boxes["image_id"], value_set=pa.concat_arrays(dropped))
        rejects.append(_box_rejects(boxes.filter(lost)))
        boxes = boxes.filter(pc.invert(lost))
    return Tables(images, boxes, tables.queries, tables.gallery, _in_order(pa.concat_tables(rejects), parts))


def _in_order(rejects: pa.Table, parts: list[Rows]) -> pa.Table:
    """Rejects by source file, as these were read, and by row: the same whatever the chunks."""
    if len(rejects) < 2:
        return rejects
    files = list(dict.fromkeys(rows.source_file for rows in parts))
    file = pc.index_in(rejects["source_file"].cast(pa.string()), value_set=pa.array(files)).to_numpy()
    return rejects.take(pa.array(np.lexsort((rejects["source_row"].to_numpy(), file))))


def _usable_images(
    images: pa.Table, root: Path, use: ImageUse
) -> tuple[pa.Table, dict[int, tuple[str, str]]]:
    """Images with the sizes of their files, and of those that cannot be used (row: code, detail)."""
    faults: dict[int, tuple[str, str]] = {}
    sizes: list[tuple[int, int] | None] = [None] * len(images)
    rows = range(len(images)) if use.read else np.flatnonzero(suspicious(images["rel_path"])).tolist()
    paths = images["rel_path"].take(pa.array(rows, pa.int64())).to_pylist()
    for row, (fault, size) in zip(rows, _looked_at(root, paths, use), strict=True):
        sizes[row] = size
        if fault is not None:
            faults[row] = fault
    if use.read and len(images):
        for position, column in enumerate(("width", "height")):
            values = pa.array([None if size is None else size[position] for size in sizes], pa.int32())
            images = images.set_column(
                images.schema.get_field_index(column), images.schema.field(column), values
            )
    if faults:
        images = images.filter(pa.array([row not in faults for row in range(len(images))]))
    return images, faults


def _looked_at(root: Path, paths: Sequence[str], use: ImageUse) -> Iterator[_Look]:
    """What is wrong with each image (code, detail), or else its size where it is read."""

    def look(rel_path: str) -> _Look:
        fault = path_fault(rel_path)
        if fault is not None:
            return ("image_path", f"{fault}: {rel_path[:80]!r}"), None
        try:
            return None, read_header(root / rel_path, decode=use.decode).size() if use.read else None
        except Unreadable as error:
            return ("image_unreadable", f"{rel_path}: {error}"), None

    if not use.decode or len(paths) < 2:
        return map(look, paths)
    with ThreadPoolExecutor(cores()) as pool:  # decoding leaves the interpreter to others
        return iter(list(pool.map(look, paths)))


def _image_rejects(
    images: pa.Table, faults: Mapping[int, tuple[str, str]], sources: Sequence[Rows]
) -> pa.Table:
    ids = images["image_id"].to_pylist()
    rows = [
        {
            "severity": INVALID,
            "code": code,
            "image_id": ids[row],
            "source_unit": sources[row].source_unit,
            "source_file": sources[row].source_file,
            "source_row": 0,
            "detail": detail,
        }
        for row, (code, detail) in faults.items()
    ]
    return pa.Table.from_pylist(rows, schema=REJECTS)


def _box_rejects(boxes: pa.Table) -> pa.Table:
    count = len(boxes)
    word = {"severity": INVALID, "code": "image_rejected", "detail": "its image is among the rejects"}
    columns = {
        **{name: pa.repeat(value, count) for name, value in word.items()},
        **{name: boxes[name] for name in ("image_id", "source_unit", "source_file", "source_row")},
    }
    return pa.Table.from_arrays([columns[f.name].cast(f.type) for f in REJECTS], schema=REJECTS)


def _image_digests(tables: Tables, found: Fingerprint, use: ImageUse) -> list[str] | None:
    if not use.read:
        return None
    names = tables.images["rel_path"].to_pylist()
    unlisted = next((name for name in names if name not in found.images), None)
    if unlisted is not None:
        raise CatalogError(
            f"image {unlisted} is not among the images that the adapter found; check its folder"
        )
    return [found.images[name] for name in names]
