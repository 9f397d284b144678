"""Finds a subject in the files of a store, whatever they are: tables, arrays, text, pages, databases, caches.

Every file is decoded: Parquet, Zarr and NumPy arrays row by row, pages with their pictures, SQLite, and
anything else as text. The store's list of forgotten people has no names and is not a find.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.forgotten import FORGOTTEN
from data_catalog.row_tables import COORDINATES
from flows.config.pins import TRAINED
from flows.config.trained_on import VIEWS
from flows.forget.pictures import Pictures
from flows.forget.trace import Trace, blocks_of_rows, row_digests
from flows.plan.catalog import KIND
from flows.plan.forgotten_list import FILE
from storage.errors import StorageError
from storage.feature_store.layout import ARRAY
from storage.manifest import Manifest
from storage.store import Store

log = logging.getLogger(__name__)

_ZARR = "zarr.json"
_HEAD = 4096
"""Bytes in which a file that is not text has a zero."""
_NAMES = ("image_id", "rel_path", "source_unit", "source_file", "source", "image", "detail", "query_id")
"""Columns that may hold the name of an image."""


@dataclass(frozen=True)
class Find:
    """A file with a subject in it, by its path under the store, and what of the subject."""

    file: str
    what: str


def scan(store: Store, traces: Iterable[Trace]) -> list[Find]:
    """Decode every file under a store's folder, and say which hold a subject."""
    searches = [_Search(store, trace) for trace in traces]
    found = []
    for file in sorted(path for path in store.root.rglob("*") if path.is_file()):
        name = file.relative_to(store.root).as_posix()
        if name != FILE:
            whats = dict.fromkeys(what for search in searches for what in search.finds(file, name))
            found += [Find(name, what) for what in whats]
    return found


class _Search:
    """The search for one subject."""

    def __init__(self, store: Store, trace: Trace) -> None:
        self._store = store
        self._trace = trace
        self._pictures = Pictures(trace.regions)
        if trace.places and not trace.regions:
            log.warning(
                "the folder of %s is not known on this machine, so pages are not searched for pictures: run "
                "its ingest here, then the same command again",
                trace.subject.dataset,
            )
        elif self._pictures.unreadable:
            log.warning(
                "%d images of %s cannot be read, so pages are not searched for them",
                self._pictures.unreadable,
                trace.subject.dataset,
            )
        self._datasets: dict[str, frozenset[str] | None] = {}

    def finds(self, file: Path, name: str) -> Iterator[str]:
        if not self._concerns(name) or _is_shard(file):
            return
        try:
            if file.suffix == ".parquet":
                yield from self._in_table(file)
            elif file.suffix == ".npy":
                yield from self._in_rows([np.load(file, mmap_mode="r")])
            elif file.suffix == ".sqlite":
                yield from self._in_database(file)
            elif file.name == _ZARR and (file.parent / ARRAY / _ZARR).is_file():
                yield from self._in_rows(blocks_of_rows(file.parent))
            else:
                yield from self._in_bytes(file)
        except (StorageError, pa.ArrowException, OSError, ValueError, sqlite3.DatabaseError) as error:
            yield f"it could not be decoded ({str(error)[:80]})"

    def _concerns(self, name: str) -> bool:
        """Whether the file may be about the subject's dataset: another dataset may have the same names."""
        parts = name.split("/")
        if parts[0].startswith(".") or len(parts) < 3:
            return True
        datasets = datasets_of(self._store, f"{parts[0]}/{parts[1]}", self._datasets)
        return datasets is None or self._trace.subject.dataset in datasets

    def _in_table(self, file: Path) -> Iterator[str]:
        """By batches: the galleries of a protocol can have many million rows."""
        found = Counter[str]()
        with pq.ParquetFile(file) as opened:
            yield from self._in_text(str(opened.metadata.metadata or ""))
            for batch in opened.iter_batches():
                found.update(self._in_rows_of_table(pa.Table.from_batches([batch])))
        yield from (f"{what} of {count} rows" for what, count in found.items() if count)

    def _in_rows_of_table(self, table: pa.Table) -> dict[str, int]:
        """How many rows have something of the subject, by what that is."""
        trace = self._trace
        columns = {
            name: table[name].cast(pa.string()) for name in table.column_names if _is_text(table[name].type)
        }
        found = {}
        for name, mine in (
            ("person_id", trace.subject.people),
            ("person_id_raw", trace.subject.people),
            ("query_id", trace.query_ids),
        ):
            if name in columns:
                found[name] = _count(_is_in(columns[name], mine))
        if "box_id" in columns:
            own = _is_in(columns["box_id"], trace.box_ids)
            if "ignore_reason" in columns:  # as a region without a person it stays
                no_one = pc.fill_null(pc.equal(columns["ignore_reason"], FORGOTTEN), False)
                own = pc.and_(own, pc.invert(no_one))
            found["box_id"] = _count(own)
        if "ignore_reason" not in columns:
            found["boxes"] = self._count_places(table)
        for name in [name for name in _NAMES if name in columns]:
            values = [value for value in columns[name].unique().to_pylist() if value]
            named = {value for value in values if value in trace.box_ids or self._names_image(value)}
            found[f"names in {name}"] = _count(_is_in(columns[name], named))
        return found

    def _count_places(self, table: pa.Table) -> int:
        """How many rows have a box that shows the subject."""
        if not {"image_id", *COORDINATES} <= set(table.column_names) or not self._trace.places:
            return 0
        names = pa.array(sorted(self._trace.places), pa.string())
        rows = table.filter(pc.is_in(table["image_id"].cast(pa.string()), value_set=names))
        columns = [rows[name].to_pylist() for name in ("image_id", *COORDINATES)]
        return sum(
            (x1, y1, x2, y2) in self._trace.places[name]
            for name, x1, y1, x2, y2 in zip(*columns, strict=True)
        )

    def _in_rows(self, blocks: Iterable[np.ndarray]) -> Iterator[str]:
        digests = (digest for block in blocks if block.ndim > 1 for digest in row_digests(block))
        if count := sum(digest in self._trace.rows for digest in digests):
            yield f"{count} of its rows"

    def _in_database(self, file: Path) -> Iterator[str]:
        count = 0
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                for row in database.execute(f'SELECT * FROM "{table}"'):  # one by one: it may hold millions
                    count += sum(self._names_image(value) for value in row if isinstance(value, str))
        if count:
            yield f"{count} names of images"
        yield from self._in_bytes(file)

    def _in_bytes(self, file: Path) -> Iterator[str]:
        content = file.read_bytes()
        if b"\0" in content[:_HEAD]:  # weights, say: only whole names are looked for
            names = self._trace.box_ids | self._image_names
            if not any(name.encode("utf-8", "surrogatepass") in content for name in names):
                return
        yield from self._in_text(content.decode("utf-8", "replace"))
        if file.suffix == ".html" and (count := self._pictures.on_page(content)):
            yield f"{count} pictures"

    def _in_text(self, text: str) -> Iterator[str]:
        for what, pattern in self._patterns:
            if pattern.search(text):
                yield what

    @cached_property
    def _patterns(self) -> Sequence[tuple[str, re.Pattern[str]]]:
        trace = self._trace
        found = []
        if trace.subject.people:
            ids = "|".join(map(re.escape, sorted(trace.subject.people)))
            dataset = re.escape(trace.subject.dataset)
            said = rf"(?:person(?:[_ -]?id)?[\s\"'=:]{{1,4}}|{dataset}/)(?:{ids})(?![\w.-])"
            found.append(("it names the person", re.compile(said, re.IGNORECASE)))
        for what, names in (("it names a box", trace.box_ids), ("it names an image", self._image_names)):
            if names:
                found.append((what, _any_of(names)))
        return found

    @cached_property
    def _image_names(self) -> frozenset[str]:
        return frozenset(self._trace.images | self._trace.paths)

    def _names_image(self, text: str) -> bool:
        return bool(self._image_names and self._any_image.search(text))

    @cached_property
    def _any_image(self) -> re.Pattern[str]:
        return _any_of(self._image_names)


def datasets_of(store: Store, name: str, known: dict[str, frozenset[str] | None]) -> frozenset[str] | None:
    """The datasets of the rows of an artifact `kind/key`; None if a manifest that would tell is gone.

    Models tell nothing: what is computed with one is of the dataset that it is computed on. `known` are those
    of artifacts that were asked for before.
    """
    if name not in known:
        found = store.named(name)
        known[name] = None if found is None else _datasets(store, found.manifest, known)
    return known[name]


def _datasets(
    store: Store, manifest: Manifest, known: dict[str, frozenset[str] | None]
) -> frozenset[str] | None:
    if manifest.kind == KIND:
        return frozenset([str(manifest.identity.recipe.get("dataset"))])
    views = manifest.made_by.get(VIEWS, {})
    datasets = frozenset(str(view["dataset"]) for view in views.values())
    for name, source in manifest.sources.items():
        if source.partition("/")[0] not in TRAINED and name not in views:
            more = datasets_of(store, source, known)
            if more is None:
                return None
            datasets |= more
    return datasets


def _is_shard(file: Path) -> bool:
    """Whether this is a part of an array, which is decoded with its group."""
    return file.name.isdigit() and f"/{ARRAY}/c/" in file.as_posix()


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """One of the names, and not the end or the beginning of a longer one."""
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, sorted(names)))})(?![\w-])")


def _is_in(column: pa.ChunkedArray, names: Iterable[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(sorted(names), pa.string()))


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)
