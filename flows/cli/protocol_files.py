"""CUHK-SYSU's protocol files, parsed once and then read from Parquet, keyed by the file's digest."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.adapters.cuhk_sysu import CuhkSysu
from data_catalog.adapters.protocol import Unit
from data_catalog.hash_cache import file_sha256
from data_catalog.rows import to_tables
from data_catalog.schema import GALLERY, QUERIES
from flows.errors import missing
from personsearch_core.evaluation.readings import LOW_RESOLUTION, OCCLUSION
from storage import durable
from storage.folders import whole_folder

log = logging.getLogger(__name__)

SUBSET_FILES = {OCCLUSION: "Occlusion.mat", LOW_RESOLUTION: "Resolution.mat"}

_FORMAT = f"{CuhkSysu.name}-{CuhkSysu.version}"
_TABLES = {"queries": QUERIES, "gallery": GALLERY}


@dataclass(frozen=True, eq=False)
class ProtocolTables:
    """The catalog's `queries` and `gallery` of a protocol file; `parsed` is false if they were cached."""

    queries: pa.Table
    gallery: pa.Table
    parsed: bool


@dataclass(frozen=True, eq=False)
class Subsets:
    """CUHK-SYSU's subsets by the names of their readings, and why others are missing."""

    tables: Mapping[str, ProtocolTables] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


def default_cache() -> Path | None:
    """personsearch/protocols in $XDG_CACHE_HOME or ~/.cache; None for a user without a home folder."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base) / "personsearch" / "protocols"


def read_protocol(path: Path, cache: Path | None) -> ProtocolTables:
    """The tables of a TestG*.mat, from the folder `cache` if this content was parsed before.

    The cache only saves time: if it cannot be read or written, the file is parsed, with a warning.
    Raises CatalogError if the file is not a CUHK-SYSU protocol.
    """
    if cache is None:
        return _parse(path)
    folder = cache / f"{_FORMAT}-{file_sha256(path)}"
    kept = _kept(folder)
    if kept is not None:
        return kept
    parsed = _parse(path)
    try:
        _keep(folder, parsed.queries, parsed.gallery)
    except OSError as error:
        log.warning("cannot cache the parsed protocol: %s", error)
    return parsed


def read_subsets(protocol_file: Path, cache: Path | None) -> Subsets:
    """The subsets' files beside a protocol file, in annotation/test/subset of the dataset."""
    folder = protocol_file.absolute().parent.parent / "subset"
    found, absent = {}, {}
    for name, file in SUBSET_FILES.items():
        if (folder / file).is_file():
            found[name] = read_protocol(folder / file, cache)
        else:
            absent[name] = missing(folder / file)
    return Subsets(found, absent)


def _parse(path: Path) -> ProtocolTables:
    tables = to_tables(list(CuhkSysu().read(path.parent, Unit(path.name, "test"), {})))
    return ProtocolTables(tables.queries, tables.gallery, parsed=True)


def _kept(folder: Path) -> ProtocolTables | None:
    """The tables in a cache folder; None if it has no usable ones."""
    found = {}
    for name, schema in _TABLES.items():
        path = folder / f"{name}.parquet"
        try:
            found[name] = pq.read_table(path, page_checksum_verification=True)
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            log.warning("cannot read %s, parsing the protocol file again: %s", path, error)
            return None
        if found[name].schema != schema:
            log.warning("%s has outdated columns, parsing the protocol file again", path)
            return None
    return ProtocolTables(**found, parsed=False)


def _keep(folder: Path, queries: pa.Table, gallery: pa.Table) -> None:
    durable.make_folder(folder.parent)
    with whole_folder(folder) as partial:
        for name, table in zip(_TABLES, (queries, gallery), strict=True):
            pq.write_table(table, partial / f"{name}.parquet", compression="zstd", write_page_checksum=True)
