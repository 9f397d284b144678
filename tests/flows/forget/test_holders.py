"""What holds a person: what was made from rows of the split that shows the person, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_catalog.forgotten import NO_ONE
from data_catalog.rows import Rows, to_tables
from data_catalog.snapshot import SnapshotWriter
from flows.errors import ConfigError
from flows.forget.forgetting import plan_forgetting
from flows.forget.holders import find_holders, require_known
from flows.forget.removal import remove
from flows.forget.scan import datasets_of
from flows.forget.subject import Subject, subjects_of
from flows.run.records import RunRecord, records_folder
from storage.errors import StorageError
from storage.local import LocalStore
from storage.manifest import Identity
from storage.remote import RemoteStore
from storage.store import Artifact
from storage.tags import set_tag
from tests.crash.making_operations import DESCRIPTION


def snapshot(store: LocalStore, dataset: str) -> Artifact:
    """anna in a training image, bo in both splits; the test image c.jpg shows an unknown person."""
    with store.making(Identity(kind="ingest", version=1, recipe={"dataset": dataset}, inputs={})) as work:
        rows = Rows("boxes.csv")
        names, splits = ["a.jpg", "b.jpg", "c.jpg"], ["train", "test", "test"]
        rows.images(names, names, splits, width=100, height=100)
        box, ids = [0, 0, 10, 20], ["anna", "bo", "bo", None]
        rows.boxes(
            ["a.jpg", "a.jpg", "b.jpg", "c.jpg"],
            np.array([box, box, box, box], np.float32),
            ["train", "train", "test", "test"],
            [1, 2, 3, 4],
            person_id=ids,
        )
        with SnapshotWriter(work.path, dataset) as writer:
            writer.write(to_tables([rows]))
            writer.finish(writer.images_and_queries()[1], lambda: DESCRIPTION)
        return work.commit(f"snapshot of {dataset}")


class Chain:
    """A store with every kind of artifact that a person may be in."""

    def __init__(self, root: Path) -> None:
        self.store = LocalStore(root)
        self.made = {"ingest": snapshot(self.store, "drawn"), "other": snapshot(self.store, "other")}
        self._make("detector", train=("ingest", "train"))
        self._make("features", people=("ingest", "train"), detector="detector")
        self._make("reid", features="features")
        self._make("detections", test=("ingest", "test"), detector="detector")
        self._make("gallery", detections="detections", reid="reid")
        self._make("other detections", test=("other", "test"), detector="detector")

    def _make(self, label: str, **sources: Any) -> None:
        names = {name: each if isinstance(each, str) else each[0] for name, each in sources.items()}
        views = {
            name: {"dataset": self.made[each[0]].manifest.identity.recipe["dataset"], "split": each[1]}
            for name, each in sources.items()
            if not isinstance(each, str)
        }
        kind = label.split()[-1]
        identity = Identity(kind=kind, version=1, recipe={"label": label}, inputs={})
        with self.store.making(identity) as work:
            (work.path / "data.bin").write_bytes(label.encode())
            named = {name: f"{self.made[each].kind}/{self.made[each].key}" for name, each in names.items()}
            self.made[label] = work.commit(label, sources=named, made_by={"views": views} if views else {})

    def labels(self, names: Any) -> list[str]:
        label_of = {f"{each.kind}/{each.key}": label for label, each in self.made.items()}
        return [label_of[name] for name in names]


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path / "store")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain") / "store")


def test_the_split_decides(untouched: Chain) -> None:
    chain = untouched
    found = find_holders(chain.store, [Subject("drawn", frozenset({"anna"}))])
    assert chain.labels(found.names) == ["features", "ingest"]
    assert chain.labels(model.name for model in found.models) == ["detector", "reid"]
    found = find_holders(chain.store, [Subject("drawn", images=frozenset({"c.jpg"}))])
    assert chain.labels(found.names) == ["gallery", "detections", "ingest"]
    assert found.models == []
    both = find_holders(chain.store, [Subject("drawn", frozenset({"bo"}))])
    assert set(chain.labels(both.names)) == {"gallery", "detections", "features", "ingest"}


def test_removal_takes_what_holds_them_and_leaves_the_rest(chain: Chain) -> None:
    store = chain.store
    name = {label: f"{each.kind}/{each.key}" for label, each in chain.made.items()}
    set_tag(store, "model", name["reid"])
    set_tag(store, "rows", name["features"])
    for number, label in enumerate(("features", "other detections")):
        record = RunRecord(
            records_folder(store.root) / f"2026010{number}T000000-abcdef.json", "c.yaml", finished="then"
        )
        kind, _, key = name[label].partition("/")
        record.stages = [{"stage": kind, "state": "made", "key": key}]
        record._write()
        log = store.place.log_path_of(kind, key)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("a line")
    for kind in ("features", "reid"):
        (store.place.work_path_of(kind, "0" * 32) / "rows").mkdir(parents=True)
    (store.root / ".damaged" / "features-1-0").mkdir(parents=True)
    removed = remove(store, find_holders(store, [Subject("drawn", frozenset({"anna"}))]))
    assert (removed.artifacts, removed.records, removed.tags) == (2, 1, ("rows",))
    assert removed.unfinished == (f"reid/{'0' * 32}",)
    left = {label for label, each in chain.made.items() if store.find(each.kind, each.key) is not None}
    assert left == chain.made.keys() - {"ingest", "features"}
    assert [path.name for path in records_folder(store.root).iterdir()] == ["20260101T000000-abcdef.json"]
    assert [path.parent.name for path in (store.root / ".logs").rglob("*.log")] == ["detections"]
    for folder in (".removed", ".damaged", ".work/features"):
        assert not any((store.root / folder).glob("*")), folder


def test_what_uses_an_artifact_stops_the_removal(chain: Chain) -> None:
    gallery = chain.made["gallery"]
    holders = find_holders(chain.store, [Subject("drawn", frozenset({"bo"}))])
    with (
        chain.store.place.making(gallery.kind, gallery.key),
        pytest.raises(StorageError, match=r"gallery/.* is in use by another process.*same command again"),
    ):
        remove(chain.store, holders)
    remove(chain.store, find_holders(chain.store, [Subject("drawn", frozenset({"bo"}))]))
    assert find_holders(chain.store, [Subject("drawn", frozenset({"bo"}))]).names == []


def test_the_dataset_of_rows_is_that_of_what_they_were_computed_on(untouched: Chain) -> None:
    known: dict[str, frozenset[str] | None] = {}
    made, store = untouched.made, untouched.store
    assert datasets_of(store, made["other detections"].name, known) == {"other"}
    assert datasets_of(store, made["gallery"].name, known) == {"drawn"}
    assert datasets_of(store, "gallery/" + "0" * 32, known) is None


@pytest.mark.parametrize(
    ("people", "images", "said"),
    [
        ([], [], "name whom to forget"),
        (["anna"], [], "--person anna: write it as DATASET/ID"),
        ([], ["drawn/"], "--image drawn/: write it as DATASET/IMAGE"),
        (["drawn/ana"], [], "no snapshot of drawn has it; did you mean 'anna'"),
        (["prw/anna"], [], "no snapshot of 'prw'; it has: drawn, other"),
        ([], ["drawn/d.jpg"], "--image drawn/d.jpg: no snapshot of drawn has it"),
    ],
)
def test_who_is_unknown_is_said(untouched: Chain, people: list[str], images: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_known(untouched.store, subjects_of(people, images), {"drawn": NO_ONE, "prw": NO_ONE})
    assert said in str(caught.value)


def test_a_store_on_object_storage_is_refused_with_what_to_do(tmp_path: Path) -> None:
    store = RemoteStore(f"memory://{tmp_path.name}", tmp_path)
    with pytest.raises(
        ConfigError, match=r"is on object storage.*pull it into a local store.*dataset's folder"
    ):
        plan_forgetting(store, subjects_of(["drawn/anna"], ()), ())
