"""CUHK-SYSU's protocol files, parsed once: later reads come from Parquet, by the file's digest."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.errors import CatalogError
from data_catalog.matfile import only_variable

_FORMAT = 1
"""Raised when the cached tables change."""
_TABLES = ("queries", "gallery")


@dataclass(frozen=True, eq=False)
class ProtocolTables:
    """The catalog's `queries` and `gallery` tables of one protocol file; `parsed` unless they were cached."""

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
    folder = cache / f"{digest}-v{_FORMAT}"
    if folder.is_dir():
        queries, gallery = (pq.read_table(folder / f"{name}.parquet") for name in _TABLES)
        return ProtocolTables(queries, gallery, parsed=False)
    queries, gallery = _parse(path)
    _keep(folder, queries, gallery)
    return ProtocolTables(queries, gallery, parsed=True)


def _parse(path: Path) -> tuple[pa.Table, pa.Table]:
    name, entries = only_variable(path)
    if not name.startswith("TestG") or not isinstance(entries, list) or not entries:
        raise CatalogError(f"{path}: holds {name!r}; expected a CUHK-SYSU protocol such as TestG100")
    queries: list[tuple[str, str, Any]] = []
    gallery: list[tuple[str, str, Any]] = []
    for number, entry in enumerate(entries):
        try:
            (query,) = entry["Query"]
            queries.append((str(number), query["imname"], query["idlocate"]))
            gallery += [(str(number), item["imname"], item["idlocate"]) for item in entry["Gallery"]]
        except (KeyError, TypeError, ValueError) as error:
            raise CatalogError(
                f"{path}: entry {number} has no Query and Gallery with imname and idlocate"
            ) from error
    return _table(path, queries, name), _table(path, gallery, name)


def _table(path: Path, rows: list[tuple[str, str, Any]], protocol: str) -> pa.Table:
    """Boxes come as x, y, width, height in integers of any width, empty where nobody is to be found."""
    is_positive = np.array([np.size(box) > 0 for _, _, box in rows])
    odd = [i for i, (_, _, box) in enumerate(rows) if np.size(box) not in (0, 4)]
    if odd:
        raise CatalogError(
            f"{path}: an idlocate of query {rows[odd[0]][0]} has {np.size(rows[odd[0]][2])} numbers"
        )
    boxes = np.zeros((len(rows), 4))
    for i in np.flatnonzero(is_positive):
        boxes[i] = np.asarray(rows[i][2], np.float64).ravel()
    boxes[:, 2:] += boxes[:, :2]
    columns = {f"{name}": boxes[:, i].astype(np.float32) for i, name in enumerate(("x1", "y1", "x2", "y2"))}
    return pa.table(
        {
            "protocol": pa.array([protocol] * len(rows)).dictionary_encode(),
            "query_id": pa.array([row[0] for row in rows]).dictionary_encode(),
            "image_id": pa.array([row[1] for row in rows]).dictionary_encode(),
            "is_positive": is_positive,
        }
        | {name: pa.array(values, mask=~is_positive) for name, values in columns.items()}
    )


def _keep(folder: Path, queries: pa.Table, gallery: pa.Table) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        complete = Path(temporary) / "complete"
        complete.mkdir()
        for name, table in zip(_TABLES, (queries, gallery), strict=True):
            pq.write_table(table, complete / f"{name}.parquet", compression="zstd")
        if not folder.exists():
            complete.rename(folder)
