"""A view of a snapshot as stages take it: a digest that is remembered, and the scenes in it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from flows.plan.views import ViewSpec, read_scenes, view_digest
from storage.local import LocalStore
from storage.manifest import Identity
from storage.store import Artifact
from tests.flows.test_golden_keys import DIGESTS, drawn_snapshot


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def snapshot(store: LocalStore) -> Artifact:
    with store.making(Identity(kind="ingest", version=1, recipe={}, inputs={})) as work:
        drawn_snapshot(work.path)
        return work.commit("the content")


def test_a_digest_is_that_of_the_view_and_no_dataset_s_name(store: LocalStore, snapshot: Artifact) -> None:
    spec = ViewSpec("photos", "train", "people")
    assert view_digest(snapshot, spec, store) == DIGESTS["people"]
    truth = ViewSpec("photos", "test", "truth", protocols=("prw",))
    assert view_digest(snapshot, truth, store) == DIGESTS["truth"]
    for other in (replace(spec, use="boxes"), replace(spec, split="test"), replace(spec, min_height=75.0)):
        assert view_digest(snapshot, other, store) != DIGESTS["people"]
    remembered = len(list((store.root / ".cache" / "views").iterdir()))
    assert view_digest(snapshot, replace(spec, dataset="renamed"), store) == DIGESTS["people"]
    assert len(list((store.root / ".cache" / "views").iterdir())) == remembered == 5


def test_a_remembered_digest_is_that_of_one_content(store: LocalStore, snapshot: Artifact) -> None:
    spec = ViewSpec("photos", "train", "people")
    view_digest(snapshot, spec, store)
    manifest = snapshot.manifest.model_copy(update={"content_digest": "another"})
    view_digest(Artifact(snapshot.path, manifest), spec, store)
    assert len(list((store.root / ".cache" / "views").iterdir())) == 2


def test_a_view_is_told_to_another_process() -> None:
    spec = ViewSpec("photos", "test", "truth", 14.0, ("prw", "drawn"))
    assert ViewSpec.from_json(json.loads(json.dumps(asdict(spec)))) == spec


def test_scenes_have_the_pixels_and_people_of_their_images(tmp_path: Path) -> None:
    spec = ViewSpec("photos", "train", "people")
    one, two = read_scenes(drawn_snapshot(tmp_path), spec, Path("/photos"))
    assert (one.image_id, one.path, one.width, one.height) == ("a", "/photos/a.jpg", 640, 480)
    assert (one.camera_id, one.source, one.apply_exif) == (1, "photos", True)
    assert np.array_equal(one.boxes, np.array([[1, 2, 30, 60], [5.5, 6, 50, 90]], np.float32))
    assert one.person_ids == ("7", None) and not one.ignore.any()
    assert (two.image_id, two.camera_id, two.person_ids) == ("b", 2, (None,))
    assert np.array_equal(two.boxes, np.array([[-3, 0, 20, 40]], np.float32)) and two.ignore.all()
    assert len({*one.box_ids, *two.box_ids}) == 3


def test_low_people_are_regions_to_ignore(tmp_path: Path) -> None:
    spec = ViewSpec("photos", "train", "people", min_height=75.0)
    one, _ = read_scenes(drawn_snapshot(tmp_path), spec, tmp_path)
    assert one.ignore.tolist() == [True, False] and one.person_ids == (None, None)
