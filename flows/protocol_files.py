"""CUHK-SYSU's protocol files, parsed once: later reads come from Parquet, by the file's digest."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.adapters.cuhk_sysu import CuhkSysu
from data_catalog.adapters.protocol import Unit
from data_catalog.rows import to_tables

_FORMAT = f"{CuhkSysu.name}-{CuhkSysu.version}"
_TABLES = ("queries", "gallery")


@dataclass(frozen=True, eq=False)
class ProtocolTables:
    """The catalog's `queries` and `gallery` of a protocol file; `parsed` is false where they were cached."""

    queries: pa.Table
    gallery: pa.Table
    parsed: bool


def default_cache() -> Path:
    """The user's own: personsearch/protocols in $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "personsearch" / "protocols"


def read_protocol(path: Path, cache: Path) -> ProtocolTables:
    """The tables of a TestG*.mat, from `cache` where this very content was parsed before.

    Raises CatalogError where the file is not such a protocol.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache / f"{_FORMAT}-{digest}"
    if folder.is_dir():
        queries, gallery = (pq.read_table(folder / f"{name}.parquet") for name in _TABLES)
        return ProtocolTables(queries, gallery, parsed=False)
    tables = to_tables(list(CuhkSysu().read(path.parent, Unit(path.name, "test"), {})))
    _keep(folder, tables.queries, tables.gallery)
    return ProtocolTables(tables.queries, tables.gallery, parsed=True)


def _keep(folder: Path, queries: pa.Table, gallery: pa.Table) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        complete = Path(temporary) / "complete"
        complete.mkdir()
        for name, table in zip(_TABLES, (queries, gallery), strict=True):
            pq.write_table(table, complete / f"{name}.parquet", compression="zstd")
        if not folder.exists():
            complete.rename(folder)
