"""Stores of earlier versions are read, verified, resumed and collected as what they are."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from flows.plan.memo import Memo
from storage.feature_store import create_features, open_features, summarise_features, verify_features
from storage.gc import collect, find_garbage
from storage.listing import list_entries
from storage.local import LocalStore
from storage.manifest import Identity, parse_manifest
from storage.tags import tags

INGEST = "ingest/a0ec5918bf88a81426f5b353c910e313"
FEATURES = "features/45e6bfd6e486586fd35ef170bf0cf256"
REID = "reid/ebb879b9578e2e5ecca51b881f5c2583"
OTHER = "reid/eb7495351ac1a480296f525a8d1c7f32"
UNFINISHED = Identity(
    kind="features", version=2, recipe={"roi": [2, 1], "half": True}, inputs={"people": "ingest-content"}
)
ROWS = (np.arange(160) % 97).reshape(40, 2, 2, 1).astype(np.float16)

MANIFEST_OF_SCHEMA_1 = b"""{
 "content_digest": "reid-other",
 "created": "2026-11-29T04:54:01+00:00",
 "files": {
  "weights.bin": {
   "sha256": "01db91d06032cc64162c16f8e35725b0e632beebdde8b2c2459979d04fb1e20c",
   "size": 6
  }
 },
 "identity": {
  "inputs": {
   "features": "features-content"
  },
  "kind": "reid",
  "recipe": {
   "seed": 2
  },
  "version": 1
 },
 "key": "eb7495351ac1a480296f525a8d1c7f32",
 "made_by": {},
 "metrics": {},
 "peak_memory_bytes": 166449152,
 "schema_version": 1,
 "seconds": 0.0,
 "self_digest": "d0b415de91f828d602af9b6dba90d0dc49155fa7bddfd740f1ad3527b9861e85",
 "sources": {
  "features": "features/45e6bfd6e486586fd35ef170bf0cf256"
 }
}
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """As schema 1 laid it out before manifests had lineages: with unfinished work, and a tag."""
    with tarfile.open(Path(__file__).with_name("stores") / "schema_1.tar.gz") as packed:
        packed.extractall(tmp_path / "store", filter="data")
    return LocalStore(tmp_path / "store")


def test_a_manifest_of_schema_1_is_read() -> None:
    manifest = parse_manifest(MANIFEST_OF_SCHEMA_1, "here")
    assert f"{manifest.kind}/{manifest.key}" == OTHER and manifest.schema_version == 1
    assert manifest.sources == {"features": FEATURES} and manifest.lineage is None
    assert manifest.to_json().encode() == MANIFEST_OF_SCHEMA_1


def test_it_is_listed_read_and_verified(store: LocalStore) -> None:
    assert {entry.name for entry in list_entries(store)} == {INGEST, FEATURES, REID, OTHER}
    assert tags(store) == {"release-1": REID}
    for name in (INGEST, FEATURES, REID, OTHER):
        assert store.find(*name.split("/")) is not None and store.verify(*name.split("/")) == []
    assert not (store.root / ".damaged").exists()
    path = store.place.path_of(*FEATURES.split("/"))
    with open_features(path) as reader:
        assert np.array_equal(reader.rows(np.arange(40)), ROWS) and len(reader.index) == 40
    assert verify_features(path) == []
    assert summarise_features(path).made_by == {"made": "by today"}
    assert Memo(store.root, "views", {"q": 1}).read() == "answer"


def test_its_unfinished_work_is_taken_over(store: LocalStore) -> None:
    with store.making(UNFINISHED) as work:
        assert work.made is None
        with create_features(
            work.path, 40, (2, 2, 1), rows_per_shard=8, attributes={"made": "by today"}
        ) as writer:
            assert writer.complete_shards == (0, 1, 2)
            writer.write(24, ROWS[24:])
        made = work.commit("content", sources={"people": INGEST})
    assert verify_features(made.path) == [] and made.manifest.lineage == [INGEST]


def test_it_is_collected_by_its_tag(store: LocalStore) -> None:
    garbage = find_garbage(store, [])
    assert [entry.name for entry in garbage.artifacts] == [OTHER]
    assert [folder.name for folder in garbage.work_areas] == [f"features/{UNFINISHED.key}"]
    collect(store, garbage)
    assert {entry.name for entry in list_entries(store)} == {INGEST, FEATURES, REID}
    assert find_garbage(store, []).size == 0
