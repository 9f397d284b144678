"""A snapshot's tables with their description as Croissant 1.0 (MLCommons), for catalogs of datasets."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
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
    *("repeated", "replace", "separator", "source", "subField", "transform"),
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


def write_croissant(snapshot: Snapshot, folder: Path, *, created: str) -> int:
    """Copy the tables into an empty folder with `croissant.json` beside them; return the number of files.

    The images are not among them: the tables name their paths and digests.

    Parameters
    ----------
    snapshot
        The dataset as it was ingested.
    folder
        The folder to fill.
    created
        When it was ingested, as ISO 8601.

    Raises
    ------
    CatalogError
        If a file cannot be written.
    """
    try:
        files = list(_copied(snapshot.path, folder))
        body = _description(snapshot, files, created)
        (folder / FILE).write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise CatalogError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
    return len(files) + 1


def _copied(source: Path, target: Path) -> Iterator[tuple[str, str, pa.Schema]]:
    """Copy each table's file; its path, digest and columns."""
    names = [f"{name}.parquet" for name in TABLES if name != GALLERY_FOLDER]
    names += sorted(f"{GALLERY_FOLDER}/{path.name}" for path in (source / GALLERY_FOLDER).glob("*.parquet"))
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, target / name)
        yield name, file_sha256(target / name), pq.read_schema(target / name)


def _description(snapshot: Snapshot, files: list[tuple[str, str, pa.Schema]], created: str) -> dict[str, Any]:
    about = snapshot.table("datasets").to_pylist()[0]
    edition = f", {about['edition']}" if about["edition"] else ""
    counts = {name: snapshot.count(name) for name in ("images", "boxes", "queries")}
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    body = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": re.sub(r"[^\w-]+", "-", snapshot.name),
        "description": f"Annotations of {snapshot.name} for person search, read by the adapter "
        f"{about['adapter']}{edition}: {shown}. Images of people are personal data, and are not included.",
        "conformsTo": CONFORMS_TO,
        "license": about["licence"],
        "datePublished": created,
        "version": "1.0.0",
        "isLiveDataset": False,
        "keywords": ["person search", "pedestrian detection", "person re-identification"],
        "distribution": [_file_object(name, digest) for name, digest, _ in files],
        "recordSet": [_record_set(name, schema) for name, _, schema in files if name != "datasets.parquet"],
    }
    return {name: value for name, value in body.items() if value is not None}


def _file_object(name: str, digest: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "encodingFormat": "application/x-parquet",
        "sha256": digest,
    }


def _record_set(name: str, schema: pa.Schema) -> dict[str, Any]:
    """A table's columns, each taken from its file."""
    table = name.removesuffix(".parquet")
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{table}/{field.name}",
                "name": f"{table}/{field.name}",
                "description": _MEANING.get(field.name, field.name.replace("_", " ")),
                "dataType": _data_type(field.type),
                "source": {"fileObject": {"@id": name}, "extract": {"column": field.name}},
            }
            for field in schema
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
