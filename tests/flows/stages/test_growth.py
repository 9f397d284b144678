"""Features and detections of a dataset that has grown: those made from nothing, from what is there."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.growing import GrowingScenes, Timed, make_stages, write_config
from flows.plan.states import Planned
from flows.provenance import computed_on
from flows.run.making import make, task_of
from flows.stages import earlier, growing
from personsearch_core.models import compute
from personsearch_core.models.detector import Detector, build_detector
from storage.feature_store import FeatureWriter
from storage.gc import collect, find_garbage
from storage.local import LocalStore
from storage.store import Artifact, Store
from tests.flows.report.invented import Silent
from tests.personsearch_core.scene_files import TINY

KINDS = ("features", "detections")
SETTINGS: dict[str, Any] = {
    "roi": {"variant": "j3", "roi_height": 8, "roi_width": 4},
    "features": {"views": [{"kind": "plain"}, {"kind": "mirrored"}], "batch_images": 4},
    "detections": {"max_per_image": 4, "score_threshold": 0.0, "batch_images": 4},
    "run": {"device": "cpu", "threads": 1},
}
EARLIER = {"train": range(48), "test": range(16, 60)}
GROWN = {"train": range(50), "test": range(14, 62)}


def here(planned: Planned, store: Store, artifacts: Mapping[str, Artifact]) -> Artifact:
    """Make a stage in this process, which has loaded torch."""
    assert planned.identity is not None
    make(task_of(planned, store, artifacts), Silent())
    made = store.find(planned.stage.kind, planned.identity.key)
    assert made is not None
    return made


class Case:
    """A dataset that grew, the store of before, and the digests of after, made from nothing."""

    def __init__(self, folder: Path, detector: Detector) -> None:
        self.folder = folder
        self.detector = detector
        self.scenes = GrowingScenes(folder / "data", 120, 80, people=4)
        self.config = write_config(folder / "growth.yaml", self.scenes.root, TINY, **SETTINGS)
        self.scenes.write(EARLIER)
        self.earlier = self.make(folder / "earlier")
        self.scenes.write(GROWN)
        self.alone = digests(self.make(folder / "alone"))

    def make(
        self, store: Path, config: Path | None = None, kinds: tuple[str, ...] = KINDS
    ) -> dict[str, Timed]:
        return make_stages(config or self.config, store, self.detector, kinds, here)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.manual_seed(0)
    return Case(tmp_path_factory.mktemp("growth"), build_detector(TINY).eval())


@pytest.fixture
def store(case: Case, tmp_path: Path) -> Path:
    """A copy of the earlier store, in which nothing has been verified yet."""
    return Path(shutil.copytree(case.folder / "earlier", tmp_path / "store"))


def digests(made: Mapping[str, Timed]) -> dict[str, str]:
    return {kind: made[kind].artifact.content_digest for kind in KINDS if kind in made}


def rows_of(made: Timed) -> dict[str, Any]:
    noted: dict[str, Any] = made.artifact.manifest.made_by["rows"]
    return noted


def test_growth_takes_what_is_there_and_computes_the_rest(
    case: Case, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        made = case.make(store)
    assert digests(made) == case.alone != digests(case.earlier)
    found = {kind: rows_of(made[kind]) for kind in KINDS}
    assert (found["features"]["taken"], found["features"]["of"]) == (48 * 4 * 2, 50 * 4 * 2)
    new = found["detections"]["of"] - found["detections"]["taken"]
    assert 4 * 4 <= new <= 4 * (4 + 4 + 4)  # of four images: people, queries, detections
    for kind in KINDS:
        key = case.earlier[kind].artifact.key
        assert found[kind]["taken_from"] == f"{kind}/{key}"
        taken, of = found[kind]["taken"], found[kind]["of"]
        assert f"{taken:,} of {of:,} rows taken from {kind}/{key[:12]}" in caplog.text
        assert LocalStore(store).verify(kind, made[kind].artifact.key) == []
    shard = "features/c/0/0/0/0"
    files = [each["features"].artifact.path / shard for each in (made, case.make(store))]
    old = store / "features" / case.earlier["features"].artifact.key / shard
    assert all(file.samefile(old) for file in files)


def test_local_workers_count_as_one_thread_each(case: Case, store: Path, tmp_path: Path) -> None:
    features = {**SETTINGS["features"], "compression": "zstd"}  # another key for the same rows
    changes = {**SETTINGS, "features": features, "run": {"device": "cpu", "workers": 2}}
    config = write_config(tmp_path / "workers.yaml", case.scenes.root, TINY, **changes)
    case.scenes.write(EARLIER)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = case.make(store, config, ("features",))["features"]
    finally:
        torch.set_num_threads(threads)
        case.scenes.write(GROWN)
    assert rows_of(made)["means"]["on"]["threads"] == 1
    assert rows_of(made)["taken"] == rows_of(made)["of"] > 0


def test_an_image_that_goes_costs_nothing(case: Case, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = case.make(store)
    case.scenes.write({"train": range(3, 50), "test": range(15, 62)})
    try:
        made = case.make(store)
    finally:
        case.scenes.write(GROWN)
    for kind in KINDS:
        assert rows_of(made[kind])["taken"] == rows_of(made[kind])["of"]
        assert rows_of(made[kind])["taken_from"] == f"{kind}/{grown[kind].artifact.key}"


def test_damaged_rows_are_computed_again_and_said(
    case: Case, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in KINDS:
        file = store / kind / case.earlier[kind].artifact.key / "features/c/0/0/0/0"
        data = bytearray(file.read_bytes())
        data[1000] ^= 4
        file.write_bytes(data)
    made = case.make(store)
    assert digests(made) == case.alone
    assert 0 < rows_of(made["features"])["taken"] <= 48 * 4 * 2 - 256
    assert rows_of(made["detections"])["taken"] < rows_of(made["detections"])["of"] - 256
    assert caplog.text.count("are damaged, and computed again") == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"detections": {"max_per_image": 3}, "features": {"batch_images": 5}},
        {"roi": {"variant": "j3", "roi_height": 8, "roi_width": 4, "margin": 0.1}},
    ],
    ids=["batches", "ROI"],
)
def test_rows_of_another_recipe_are_not_taken(case: Case, store: Path, tmp_path: Path, changes: Any) -> None:
    config = write_config(tmp_path / "other.yaml", case.scenes.root, TINY, **(SETTINGS | changes))
    _took_nothing(case.make(store, config))


@pytest.mark.parametrize("other", [{"threads": 2}, {"processor": "another"}], ids=str)
def test_rows_of_another_machine_are_not_taken(
    case: Case, store: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    monkeypatch.setattr(earlier, "computed_on", lambda device: {**computed_on(device), **other})
    made = case.make(store, kinds=("features",))
    _took_nothing(made)
    assert digests(made) == {"features": case.alone["features"]}


def test_where_neighbours_count_everything_is_computed(
    case: Case, store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (growing, compute):  # that of detections is imported when it is called
        monkeypatch.setattr(module, "neighbours_count", lambda *_: "that is not known here")
    with caplog.at_level(logging.INFO):
        made = case.make(store, kinds=("features",))
    _took_nothing(made)
    assert "every row is computed: that is not known here" in caplog.text
    assert rows_of(made["features"])["means"] is None  # nor will others take them


def _took_nothing(made: Mapping[str, Timed]) -> None:
    for kind in made.keys() & set(KINDS):
        assert (rows_of(made[kind])["taken"], rows_of(made[kind])["taken_from"]) == (0, None)


def test_it_is_found_without_what_this_machine_remembers(
    case: Case, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(store / ".cache" / "rows")
    monkeypatch.setattr(earlier, "LISTED", 1)
    assert case.make(store, kinds=("features",))["features"].taken > 0
    for folder in (store / ".cache" / "rows", store / "features" / _grown_key(case)):
        shutil.rmtree(folder)
    monkeypatch.setattr(earlier, "LISTED", 0)
    assert case.make(store, kinds=("features",))["features"].taken == 0


def _grown_key(case: Case) -> str:
    return case.make(case.folder / "alone")["features"].artifact.key


class Killed(BaseException):
    """Ends the work at once, like a signal."""


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("features", "adopt"),
        ("features", "write_stored"),
        ("detections", "write_stored"),
        ("detections", "close"),
    ],
)
def test_killed_it_goes_on(
    case: Case, store: Path, monkeypatch: pytest.MonkeyPatch, kind: str, method: str
) -> None:
    """At a shard that is taken over, at one that is written, and when all are there."""
    original: Callable[..., Any] = getattr(FeatureWriter, method)

    def and_end(writer: FeatureWriter, *args: Any) -> Any:
        original(writer, *args)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(FeatureWriter, method, and_end)
        case.make(store, kinds=(kind,))
    made = case.make(store, kinds=(kind,))
    assert digests(made) == {kind: case.alone[kind]}
    assert made[kind].taken > 0


def test_what_is_copied_from_is_not_collected(
    case: Case, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, key = LocalStore(store), case.earlier["features"].artifact.key
    fill, there = FeatureWriter.write_stored, []

    def collecting(writer: FeatureWriter, *args: Any) -> None:
        collect(opened, find_garbage(opened, [], despite_gaps=True))
        there.append(opened.peek("features", key) is not None)
        fill(writer, *args)

    monkeypatch.setattr(FeatureWriter, "write_stored", collecting)
    assert digests(case.make(store, kinds=("features",))) == {"features": case.alone["features"]}
    assert there and all(there)
    collect(opened, find_garbage(opened, [], despite_gaps=True))
    assert opened.peek("features", key) is None
