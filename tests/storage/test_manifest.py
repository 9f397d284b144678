"""Manifests come from other people's stores, too: what is damaged or reaches outside is refused."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from storage.digests import digest_json
from storage.errors import NewerVersionError, StorageError
from storage.manifest import SCHEMA, FileEntry, Identity, Manifest, parse_manifest

IDENTITY = Identity(kind="features", version=1, recipe={"roi": [16, 8]}, inputs={"boxes": "aa"})
FILE = FileEntry(size=3, sha256="ab")


def manifest(name: str = "nested/data.bin") -> Manifest:
    return Manifest(
        identity=IDENTITY,
        key=IDENTITY.key,
        content_digest="content",
        files={name: FILE},
        created="2026-01-01T00:00:00+00:00",
        seconds=1.5,
    )


def signed(**changes: object) -> bytes:
    """A manifest with changes that its own digest covers."""
    body = manifest().model_dump(mode="json") | changes
    return json.dumps({**body, "self_digest": digest_json(body)}).encode()


def test_what_is_written_is_read() -> None:
    assert parse_manifest(manifest().to_json().encode(), "here") == manifest()


def test_the_key_depends_on_all_of_the_identity() -> None:
    others: list[dict[str, object]] = [
        {"kind": "detections"},
        {"version": 2},
        {"recipe": {"roi": [8, 16]}},
        {"inputs": {"boxes": "ab"}},
        {"inputs": {"people": "aa"}},
    ]
    keys = {IDENTITY.model_copy(update=change).key for change in others}
    assert len(keys) == 5 and IDENTITY.key not in keys and len(IDENTITY.key) == 32


@pytest.mark.parametrize("name", ["", "/data.bin", "../data.bin", "a/../../data.bin", "a\\data.bin", "a\0b"])
def test_a_file_outside_the_artifact_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="not the name of a file inside"):
        manifest(name)
    with pytest.raises(StorageError, match="here is damaged"):
        parse_manifest(signed(files={name: FILE.model_dump()}), "here")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"3", b"null", b'"text"', b"[]", b"[1]", b"{}", b'{"self_digest": 3}', b"\xff"]
)
def test_what_is_no_manifest_is_damaged(raw: bytes) -> None:
    with pytest.raises(StorageError, match="here is damaged"):
        parse_manifest(raw, "here")


def test_a_key_of_another_identity_is_damage() -> None:
    with pytest.raises(StorageError, match="its key does not match"):
        parse_manifest(signed(key="0" * 32), "here")
    with pytest.raises(StorageError, match="its own digest"):
        parse_manifest(signed().replace(b'"seconds": 1.5', b'"seconds": 2.5'), "here")


@pytest.mark.parametrize("schema", [SCHEMA + 1, "2", None])
def test_a_newer_schema_is_told_from_damage(schema: object) -> None:
    with pytest.raises(NewerVersionError, match="newer version"):
        parse_manifest(signed(schema_version=schema), "here")
    assert parse_manifest(signed(schema_version=SCHEMA), "here") == manifest()


def test_what_a_key_was_computed_over_cannot_be_changed() -> None:
    for model, field in ((IDENTITY, "version"), (FILE, "size"), (manifest(), "key")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, field, getattr(model, field))


@pytest.mark.parametrize(
    ("made_by", "lineage"),
    [
        ({}, None),
        ({"lineage": "a"}, None),
        ({"lineage": ["a", 3]}, None),
        ({"lineage": ["a", "b"]}, ["a", "b"]),
    ],
)
def test_a_lineage_is_a_list_of_names(made_by: dict[str, object], lineage: list[str] | None) -> None:
    assert manifest().model_copy(update={"made_by": made_by}).lineage == lineage
