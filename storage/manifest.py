"""The manifest of an artifact: its identity, its sources, and the digest of every file."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from storage.digests import digest_json
from storage.errors import NewerVersionError, StorageError
from storage.lineage import RECORD
from storage.reading import first_problem, parse_json, read_regular

SCHEMA = 1
"""Increase it if older versions would misread a manifest. Older schemas must stay readable."""
FILE_NAME = "manifest.json"
KEY_LENGTH = 32
"""Characters of a key."""
ROWS = "rows"
"""The field of `made_by` that says how an artifact came by its rows: what computed them, and `taken_from`."""


def _inside(name: str) -> str:
    """Check that a file's name is safe to join to a directory: manifests may come from other stores."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file inside the artifact")
    return name


class FileEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    sha256: str


class Identity(BaseModel):
    """What an artifact's key is computed from.

    `inputs` maps the name of an input to a content digest: of an artifact, or of a view of one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    version: int
    recipe: dict[str, Any]
    inputs: dict[str, str]

    @property
    def key(self) -> str:
        return digest_json(self.model_dump(mode="json"))[:KEY_LENGTH]

    @property
    def name(self) -> str:
        """The artifact as `kind/key`."""
        return f"{self.kind}/{self.key}"


class Manifest(BaseModel):
    """Written last; a directory without a manifest is not an artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA
    identity: Identity
    key: str
    content_digest: str
    files: dict[Annotated[str, AfterValidator(_inside)], FileEntry]
    metrics: dict[str, Any] = {}
    sources: dict[str, str] = {}
    """The artifacts that it was made from, `kind/key` by input name. Not part of the key."""
    made_by: dict[str, Any] = {}
    """Digest of the package's source, library versions, host, threads. Not part of the key."""
    created: str
    seconds: float
    peak_memory_bytes: int | None = None
    """Of the process that built it or of its largest child, whichever is larger."""

    @property
    def kind(self) -> str:
        return self.identity.kind

    @property
    def name(self) -> str:
        """The artifact as `kind/key`."""
        return f"{self.kind}/{self.key}"

    @property
    def lineage(self) -> list[str] | None:
        """All its sources, through every generation; None if they were not recorded."""
        return recorded_lineage(self.made_by)

    @property
    def taken_from(self) -> str | None:
        """The artifact, `kind/key`, from which rows were taken; None if all were computed."""
        rows = self.made_by.get(ROWS)
        name = rows.get("taken_from") if isinstance(rows, dict) else None
        return name if isinstance(name, str) and name.count("/") == 1 else None

    def to_json(self) -> str:
        body = self.model_dump(mode="json")
        return json.dumps({**body, "self_digest": digest_json(body)}, indent=1, sort_keys=True) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest file.

    Raises FileNotFoundError if it is missing, StorageError if its own digest or its key does not match,
    NewerVersionError if a newer version wrote it.
    """
    return parse_manifest(read_regular(path), str(path))


def parse_manifest(raw: bytes, where: str) -> Manifest:
    """Like `read_manifest`, for bytes read from `where`."""
    body = checked_body(raw, where)
    try:
        manifest = Manifest.model_validate(body)
    except ValidationError as error:
        raise StorageError(f"{where} is damaged: {first_problem(error)}") from error
    if manifest.key != manifest.identity.key:
        raise StorageError(f"{where} is damaged: its key does not match its recipe and inputs")
    return manifest


def manifest_or_problem(raw: bytes, where: str, kind: str, key: str) -> Manifest | str:
    """The manifest of the artifact `kind/key`, or what is wrong with it. Raises NewerVersionError."""
    try:
        manifest = parse_manifest(raw, where)
    except NewerVersionError:
        raise
    except StorageError as error:
        return str(error)
    stranger = f"{FILE_NAME} belongs to another artifact"
    return manifest if (manifest.kind, manifest.key) == (kind, key) else stranger


def checked_body(raw: bytes, where: str) -> dict[str, Any]:
    """The fields of a manifest, after checking its own digest and its schema, which every version writes.

    Raises StorageError if it is damaged, NewerVersionError if a newer version wrote it.
    """
    holds = False
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        body = orjson.loads(raw)
        claimed = body.pop("self_digest")
        # Faster than canonical JSON, with the same bytes except for some floats and non-ASCII text.
        holds = claimed == hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
    try:
        if not holds:
            body = parse_json(raw)
            holds = body.pop("self_digest") == digest_json(body)
        schema = body["schema_version"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{where} is damaged: {error}") from error
    if not holds:
        raise StorageError(f"{where} is damaged: it does not match its own digest")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise NewerVersionError(
            f"{where} was written by a newer version of personsearch (its schema is {schema}, and this "
            f"version reads up to {SCHEMA}): upgrade personsearch to use this store"
        )
    return dict(body)


def recorded_lineage(made_by: Mapping[str, Any]) -> list[str] | None:
    """Every source of every generation, as recorded in `made_by`."""
    recorded = made_by.get(RECORD)
    is_list = isinstance(recorded, list) and all(isinstance(name, str) for name in recorded)
    return recorded if is_list else None
