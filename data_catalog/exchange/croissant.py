"""A snapshot's tables with their description as Croissant 1.0 (MLCommons), for catalogs of datasets."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.errors import CatalogError
from data_catalog.hash_cache import file_sha256
from data_catalog.schema import TABLES
from data_catalog.snapshot import GALLERY_FOLDER, Snapshot

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
FILE = "croissant.json"
_TERMS = (
    *("citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format", "includes"),
    *("isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "separator", "source", "subField", "transform", "equivalentProperty"),
    "samplingRate",
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
"""The terms that the specification gives."""
_MEANING = {
    "x1": "Left edge, in pixels from 0, unclipped",
    "y1": "Upper edge, in pixels from 0, unclipped",
    "x2": "Right edge, exclusive, in pixels",
    "y2": "Lower edge, exclusive, in pixels",
    "person_id": "Identity; null where it is unknown",
    "person_scope": "Where identities hold: in the dataset or in one sequence",
    "ignore": "Whether the box is a region to ignore",
    "sha256": "SHA-256 of the image file",
    "rel_path": "Path of the image file below the dataset's root",
}


@dataclass(frozen=True)
class Publication:
    """What Croissant requires of a dataset, and only its publisher knows.

    Parameters
    ----------
    licenses
        URLs, or SPDX identifiers.
    url
        The dataset's page.
    people, organizations
        Names of its creators.
    """

    licenses: tuple[str, ...] = ()
    url: str | None = None
    people: tuple[str, ...] = ()
    organizations: tuple[str, ...] = ()

    def properties(self) -> dict[str, Any]:
        """As Croissant has it; blank where it is not known."""
        creators = [{"@type": "sc:Person", "name": name} for name in self.people]
        creators += [{"@type": "sc:Organization", "name": name} for name in self.organizations]
        return {"license": list(self.licenses), "url": self.url, "creator": creators}


@dataclass(frozen=True)
class Described:
    """How many files were written, and the properties that Croissant requires and are not known."""

    files: int
    missing: tuple[str, ...]


def write_croissant(
    snapshot: Snapshot, folder: Path, *, created: str, published: Publication | None = None
) -> Described:
    """Copy the tables into an empty folder with `croissant.json` beside them.

    The images are not among them: the tables name their paths and digests.

    Parameters
    ----------
    snapshot
        The dataset as it was ingested.
    folder
        The folder to fill.
    created
        When it was ingested, as ISO 8601.
    published
        What its publisher says; the licence is by default that of the snapshot.

    Raises
    ------
    CatalogError
        If a file cannot be written.
    """
    known = (published or Publication()).properties()
    known["license"] = known["license"] or snapshot.table("datasets")["licence"].drop_null().to_pylist()
    stated = {name: value for name, value in known.items() if value}
    try:
        files = list(_copied(snapshot.path, folder))
        body = _description(snapshot, files, created) | stated
        (folder / FILE).write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise CatalogError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
    return Described(len(files) + 1, tuple(name for name in known if name not in stated))


@dataclass(frozen=True)
class _Table:
    """A table's file in the folder."""

    path: str
    sha256: str
    size: int
    schema: pa.Schema


def _copied(source: Path, target: Path) -> Iterator[_Table]:
    """Copy each table's file."""
    names = [f"{name}.parquet" for name in TABLES if name != GALLERY_FOLDER]
    names += sorted(f"{GALLERY_FOLDER}/{path.name}" for path in (source / GALLERY_FOLDER).glob("*.parquet"))
    for name in names:
        copied = target / name
        copied.parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, copied)
        yield _Table(name, file_sha256(copied), copied.stat().st_size, pq.read_schema(copied))


def _description(snapshot: Snapshot, files: list[_Table], created: str) -> dict[str, Any]:
    about = snapshot.table("datasets").to_pylist()[0]
    edition = f", {about['edition']}" if about["edition"] else ""
    counts = {name: snapshot.count(name) for name in ("images", "boxes", "queries")}
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": re.sub(r"[^\w-]+", "-", snapshot.name),
        "description": f"Annotations of {snapshot.name} for person search, read by the adapter "
        f"{about['adapter']}{edition}: {shown}. Images of people are personal data, and are not included.",
        "conformsTo": CONFORMS_TO,
        "datePublished": created,
        "version": "1.0.0",
        "isLiveDataset": False,
        "keywords": ["person search", "pedestrian detection", "person re-identification"],
        "distribution": [_file_object(table) for table in files],
        "recordSet": [_record_set(table) for table in files if table.path != "datasets.parquet"],
    }


def _file_object(table: _Table) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": table.path,
        "name": table.path,
        "contentUrl": table.path,
        "contentSize": f"{table.size} B",
        "encodingFormat": "application/x-parquet",
        "sha256": table.sha256,
    }


def _record_set(table: _Table) -> dict[str, Any]:
    """A table's columns, each taken from its file."""
    name = table.path.removesuffix(".parquet")
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{field.name}",
                "name": f"{name}/{field.name}",
                "description": _MEANING.get(field.name, field.name.replace("_", " ")),
                "dataType": _data_type(field.type),
                "source": {"fileObject": {"@id": table.path}, "extract": {"column": field.name}},
            }
            for field in table.schema
        ],
    }


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
