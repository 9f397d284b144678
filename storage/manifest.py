"""The manifest of an artifact: what it is, what it was made from, and every file with its digest."""

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

SCHEMA = 1
"""Raised when an older version would misread a manifest; then what reads it keeps reading the older ones."""
FILE_NAME = "manifest.json"


def _inside(name: str) -> str:
    """A file's name as it may be joined to a directory: manifests come from other people's stores, too."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is no name of a file inside the artifact")
    return name


class FileEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    sha256: str


class Identity(BaseModel):
    """What an artifact's key is computed over.

    `inputs` maps the name of an input to its content digest: an artifact, or a view of one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    version: int
    recipe: dict[str, Any]
    inputs: dict[str, str]

    @property
    def key(self) -> str:
        return digest_json(self.model_dump(mode="json"))[:32]


class Manifest(BaseModel):
    """Written last; a directory without one does not exist for anyone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA
    identity: Identity
    key: str
    content_digest: str
    files: dict[Annotated[str, AfterValidator(_inside)], FileEntry]
    metrics: dict[str, Any] = {}
    sources: dict[str, str] = {}
    """The artifacts that it was made from, `kind/key` by input name: for people, not for the key."""
    made_by: dict[str, Any] = {}
    """Digest of the package's source, library versions, host, threads: provenance, not identity."""
    created: str
    seconds: float
    peak_memory_bytes: int | None = None
    """Of the process that made it or of the largest of its children, whichever is larger."""

    @property
    def kind(self) -> str:
        return self.identity.kind

    @property
    def lineage(self) -> list[str] | None:
        """All that it was made from, through every generation; None where that was not recorded."""
        return recorded_lineage(self.made_by)

    def to_json(self) -> str:
        body = self.model_dump(mode="json")
        return json.dumps({**body, "self_digest": digest_json(body)}, indent=1, sort_keys=True) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest file.

    Raises FileNotFoundError when it is missing, StorageError when its own digest or its key does not hold,
    NewerVersionError when a newer version wrote it.
    """
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(raw: bytes, where: str) -> Manifest:
    """As `read_manifest`, of bytes that lie at `where`."""
    body = checked_body(raw, where)
    try:
        manifest = Manifest.model_validate(body)
    except ValidationError as error:
        raise StorageError(f"{where} is damaged: {error}") from error
    if manifest.key != manifest.identity.key:
        raise StorageError(f"{where} is damaged: its key does not follow from its recipe and inputs")
    return manifest


def checked_body(raw: bytes, where: str) -> dict[str, Any]:
    """What a manifest says, once its own digest and its schema are checked: every version writes both so.

    Raises StorageError when it is damaged, NewerVersionError when a newer version wrote it.
    """
    holds = False
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        body = orjson.loads(raw)
        claimed = body.pop("self_digest")
        # Quicker than canonical JSON, and the same bytes but for some floats and what is not ASCII.
        holds = claimed == hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
    try:
        if not holds:
            body = json.loads(raw)
            holds = body.pop("self_digest") == digest_json(body)
        schema = body["schema_version"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{where} is damaged: {error}") from error
    if not holds:
        raise StorageError(f"{where} is damaged: it does not hold to its own digest")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise NewerVersionError(
            f"{where} was written by a newer version of personsearch (its schema is {schema}, and this "
            f"version reads up to {SCHEMA}): upgrade personsearch to use this store"
        )
    return dict(body)


def recorded_lineage(made_by: Mapping[str, Any]) -> list[str] | None:
    """Every source of every generation, as `made_by` has it."""
    recorded = made_by.get(RECORD)
    is_list = isinstance(recorded, list) and all(isinstance(name, str) for name in recorded)
    return recorded if is_list else None
