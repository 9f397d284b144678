"""Artifacts move between stores whole, verified and with what they were made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from storage import receiving, recent
from storage.digests import digest_json
from storage.errors import StorageError
from storage.local import LocalStore
from storage.manifest import FILE_NAME
from storage.receiving import WORTH_LOOKING, Received, relatives
from storage.transfer import copy_artifact, lineage
from storage.work_area import RECEIVING
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


def test_sources_come_first_also_of_one_second(stores: tuple[LocalStore, LocalStore]) -> None:
    source, _ = stores
    detector = make_artifact(source, "detector")
    detections = make_artifact(source, "detections", sources=(detector,))
    assert detections.manifest.created[:16] == detector.manifest.created[:16]
    assert lineage(source, [name_of(detections)]) == [name_of(detector), name_of(detections)]


def test_a_copy_that_was_cut_off_goes_on_where_it_ended(stores: tuple[LocalStore, LocalStore]) -> None:
    source, target = stores
    made = make_artifact(source, "features", content=b"x" * 5_000)
    area = target.place.work_path_of(made.kind, made.key) / RECEIVING
    area.mkdir(parents=True)
    (area / "note.txt").write_bytes((made.path / "note.txt").read_bytes())
    (area / "nested").mkdir()
    (area / "nested" / "data.bin").write_bytes(b"x" * 4_000)
    (area / "other").write_text("of an earlier version")
    note = (made.path / "note.txt").stat().st_size
    assert copy_artifact(source, target, name_of(made)) == Received(5_000 + note, 5_000)
    assert target.verify(made.kind, made.key) == []
    assert (
        not (target.place.path_of(made.kind, made.key) / "other").exists()
        and list(target.place.work_areas()) == []
    )


def test_files_that_another_artifact_has_do_not_move(stores: tuple[LocalStore, LocalStore]) -> None:
    source, target = stores
    shard = bytes(2 * WORTH_LOOKING)
    first, second = (make_artifact(source, "features", seed, content=shard) for seed in (1, 2))
    assert copy_artifact(source, target, name_of(first)) == Received(len(shard) + 10, len(shard) + 10)
    assert copy_artifact(source, target, name_of(second)) == Received(len(shard) + 10, 10)
    files = [target.place.path_of(each.kind, each.key) / "nested" / "data.bin" for each in (first, second)]
    assert files[0].samefile(files[1]) and target.verify(second.kind, second.key) == []
    target.remove(first.kind, first.key)
    assert target.verify(second.kind, second.key) == []


def test_of_very_many_artifacts_few_manifests_are_read(
    stores: tuple[LocalStore, LocalStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, target = stores
    first, *_, last = (make_artifact(target, "features", seed) for seed in range(6))
    made = make_artifact(target, "features", 6, content=bytes(2 * WORTH_LOOKING)).manifest
    assert len(relatives(target, made)) == 6
    monkeypatch.setattr(receiving, "LOOKED_AT", 3)
    monkeypatch.setattr(recent, "REMEMBERED", 2)
    grown = made.model_copy(update={"made_by": {"rows": {"taken_from": name_of(first)}}})
    assert [each.key for each in relatives(target, grown)] == [first.key, last.key]


def test_a_shared_file_of_an_earlier_try_is_not_written_over(stores: tuple[LocalStore, LocalStore]) -> None:
    """It was cut off; then the artifact was built again, with other bytes."""
    source, target = stores
    held = make_artifact(target, "features", 1)
    made = make_artifact(source, "features", content=b"other rows")
    shared = target.place.work_path_of(made.kind, made.key) / RECEIVING / "nested" / "data.bin"
    shared.parent.mkdir(parents=True)
    shared.hardlink_to(held.path / "nested" / "data.bin")
    assert copy_artifact(source, target, name_of(made))
    assert target.verify(made.kind, made.key) == target.verify(held.kind, held.key) == []


def test_a_damaged_file_is_not_shared(stores: tuple[LocalStore, LocalStore]) -> None:
    source, target = stores
    shard = bytes(2 * WORTH_LOOKING)
    first, second = (make_artifact(source, "features", seed, content=shard) for seed in (1, 2))
    assert copy_artifact(source, target, name_of(first))
    file = target.place.path_of(first.kind, first.key) / "nested" / "data.bin"
    file.write_bytes(b"y" * len(shard))
    assert copy_artifact(source, target, name_of(second)) == Received(len(shard) + 10, len(shard) + 10)
    assert target.verify(second.kind, second.key) == [] and target.verify(first.kind, first.key)


def test_who_builds_an_artifact_writes_into_no_file_that_arrived(
    stores: tuple[LocalStore, LocalStore],
) -> None:
    """A copy was cut off after it had given another artifact's files further names."""
    source, target = stores
    first, second = (make_artifact(source, "features", seed) for seed in (1, 2))
    assert copy_artifact(source, target, name_of(first))
    area = target.place.work_path_of(second.kind, second.key) / RECEIVING
    area.mkdir(parents=True)
    (area / "note.txt").hardlink_to(target.place.path_of(first.kind, first.key) / "note.txt")
    make_artifact(target, "features", 2, content=b"built here")
    assert target.verify(first.kind, first.key) == [] == target.verify(second.kind, second.key)


def test_damage_does_not_travel(stores: tuple[LocalStore, LocalStore]) -> None:
    source, target = stores
    made = make_artifact(source, "features")
    (made.path / "note.txt").write_text("features 9")
    with pytest.raises(StorageError, match=r"no artifact .* that is intact"):
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
    with pytest.raises(StorageError, match=r"no artifact .* that is intact"):
        copy_artifact(source, target, name_of(made))


def test_an_artifact_under_another_key_is_not_taken_for_it(stores: tuple[LocalStore, LocalStore]) -> None:
    store, _ = stores
    one, two = make_artifact(store, "features", 1), make_artifact(store, "features", 2)
    shutil.rmtree(two.path)
    shutil.copytree(one.path, two.path)
    assert store.verify("features", two.key) == ["manifest.json belongs to another artifact"]
    assert store.find("features", two.key) is None and store.find("features", one.key) is not None
