"""Artifacts move between stores whole, verified and with what they were made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from storage.digests import digest_json
from storage.errors import StorageError
from storage.local import LocalStore
from storage.manifest import FILE_NAME
from storage.transfer import copy_artifact, lineage
from tests.storage.making import make_artifact, name_of


@pytest.fixture
def stores(tmp_path: Path) -> tuple[LocalStore, LocalStore]:
    return LocalStore(tmp_path / "from"), LocalStore(tmp_path / "to")


def test_a_copy_is_found_as_the_same_artifact(stores: tuple[LocalStore, LocalStore]) -> None:
    source, target = stores
    made = make_artifact(source, "features")
    assert copy_artifact(source, target, name_of(made))
    found = target.find(made.kind, made.key)
    assert found is not None and found.manifest == made.manifest
    assert target.verify(made.kind, made.key) == []
    assert not copy_artifact(source, target, name_of(made))


def test_lineage_is_all_that_is_behind_an_artifact(stores: tuple[LocalStore, LocalStore]) -> None:
    source, _ = stores
    ingest = make_artifact(source, "ingest")
    features = make_artifact(source, "features", sources=(ingest,))
    make_artifact(source, "features", 1)
    assert set(lineage(source, [name_of(features)])) == {name_of(ingest), name_of(features)}


def test_an_interrupted_copy_is_mended_by_the_next(stores: tuple[LocalStore, LocalStore]) -> None:
    source, target = stores
    made = make_artifact(source, "features")
    work = target.work_path_of(made.kind, made.key)
    work.mkdir(parents=True)
    (work / "note.txt").write_text("half of")
    (work / "other").write_text("of an earlier try")
    assert copy_artifact(source, target, name_of(made))
    assert target.verify(made.kind, made.key) == []
    assert not (target.path_of(made.kind, made.key) / "other").exists()


def test_damage_does_not_travel(stores: tuple[LocalStore, LocalStore]) -> None:
    source, target = stores
    made = make_artifact(source, "features")
    (made.path / "note.txt").write_text("features 9")
    with pytest.raises(StorageError, match=r"no artifact .* that is whole"):
        copy_artifact(source, target, name_of(made))
    assert list(target.keys()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../../escaped": {"size": 1, "sha256": "0"}}},
        {"files": {"/tmp/escaped": {"size": 1, "sha256": "0"}}},
        {"identity": {"kind": "../x", "version": 1, "recipe": {}, "inputs": {}}},
    ],
)
def test_a_hostile_manifest_leads_nowhere(
    stores: tuple[LocalStore, LocalStore], change: dict[str, Any]
) -> None:
    source, target = stores
    made = make_artifact(source, "features")
    body = json.loads((made.path / FILE_NAME).read_text())
    del body["self_digest"]
    body |= change
    (made.path / FILE_NAME).write_text(json.dumps(body | {"self_digest": digest_json(body)}))
    with pytest.raises(StorageError, match=r"no artifact .* that is whole"):
        copy_artifact(source, target, name_of(made))


def test_an_artifact_under_another_key_is_not_taken_for_it(stores: tuple[LocalStore, LocalStore]) -> None:
    store, _ = stores
    one, two = make_artifact(store, "features", 1), make_artifact(store, "features", 2)
    shutil.rmtree(two.path)
    shutil.copytree(one.path, two.path)
    assert store.verify("features", two.key) == ["manifest.json belongs to another artifact"]
    assert store.find("features", two.key) is None and store.find("features", one.key) is not None
