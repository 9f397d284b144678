"""The manifest of an artifact: what it is, what it was made from, and every file with its digest."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from storage.digests import digest_json
from storage.errors import StorageError

SCHEMA = 1
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

    def to_json(self) -> str:
        body = self.model_dump(mode="json")
        return json.dumps({**body, "self_digest": digest_json(body)}, indent=1, sort_keys=True) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest file.

    Raises FileNotFoundError when there is none, StorageError when its own digest or its key does not hold.
    """
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(raw: bytes, where: str) -> Manifest:
    """As `read_manifest`, of bytes that lie at `where`."""
    try:
        body = json.loads(raw)
        claimed = body.pop("self_digest")
        manifest = Manifest.model_validate(body)
    except (ValueError, KeyError, AttributeError, ValidationError) as error:
        raise StorageError(f"{where} is damaged: {error}") from error
    if claimed != digest_json(body):
        raise StorageError(f"{where} is damaged: it does not hold to its own digest")
    if manifest.key != manifest.identity.key:
        raise StorageError(f"{where} is damaged: its key does not follow from its recipe and inputs")
    return manifest
