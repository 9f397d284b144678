"""People and an image are forgotten: nothing of them is left, and the rest is as if they were never there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from data_catalog.snapshot import Snapshot
from flows.config.loading import load_config
from flows.config.request import RunRequest
from flows.forget.forgetting import plan_forgetting
from flows.forget.forgotten_list import ForgottenList
from flows.forget.remaking import note
from flows.forget.subject import Subject
from flows.plan.states import resolve
from flows.run.making import make, task_of
from flows.run.planning import plan_config
from flows.stages.building import build_stages
from storage.feature_store import open_features
from storage.listing import list_entries
from storage.local import LocalStore
from storage.store import Artifact
from storage.tags import set_tag, tags
from tests.end_to_end.commands import Outcome, personsearch
from tests.end_to_end.conftest import TinyRun
from tests.flows.report.invented import Silent
from tests.in_process import InProcess, in_process

__all__ = ["in_process"]

DATA = ("ingest:scenes", "features", "detections", "gallery", "evaluation", "report")


@dataclass(frozen=True)
class Case:
    """The copy in which they were forgotten, and what the command said."""

    folder: Path
    people: tuple[str, str]
    """One of the training images, one of the test images."""
    image: str
    outcome: Outcome
    models: dict[str, str]
    """By section, the artifacts."""
    stamps: dict[str, int]
    """Of the other dataset's snapshot and the models, when their files were last changed, before."""

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.folder / "store")

    @property
    def pins(self) -> tuple[str, ...]:
        return tuple(f"{section}={{use: {name}}}" for section, name in self.models.items())


@pytest.fixture(scope="module")
def case(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Case:
    folder = tmp_path_factory.mktemp("forget") / "tiny"
    shutil.copytree(tiny_run.folder, folder)
    store = LocalStore(folder / "store")
    snapshot = Snapshot(tiny_run.outcome.path("ingest:scenes"))
    people, image = whom(snapshot)
    models = {each: f"{each}/{tiny_run.outcome.path(each).name}" for each in ("detector", "reid")}
    set_tag(store, "best", models["reid"])
    set_tag(store, "page", f"report/{tiny_run.outcome.path('report').name}")
    # What an interrupted try leaves: the models are noted, and the list has the names.
    subject = Subject("scenes", frozenset(people), frozenset([image]))
    plan = plan_forgetting(store, [subject], [folder / "tiny.yaml"])
    note(plan.remakes, store.root)
    ForgottenList(store.root).add("scenes", people=people, images=[image], root=None)
    before = stamps(folder / "store", tiny_run)
    words = [word for person in people for word in ("--person", f"scenes/{person}")]
    outcome = personsearch("forget", *words, "--image", f"scenes/{image}", "--config", folder / "tiny.yaml")
    return Case(folder, people, image, outcome, models, before)


def whom(snapshot: Snapshot) -> tuple[tuple[str, str], str]:
    """A person who is seen in training images, one who is asked for, and a test image without that one."""
    boxes = snapshot.table("boxes", ["image_id", "split", "person_id"])
    asked = snapshot.table("queries")["person_id"][0].as_py()
    trained = (
        boxes.filter(pc.equal(boxes["split"].cast("string"), "train"))["person_id"].drop_null()[0].as_py()
    )
    of_test = boxes.filter(pc.equal(boxes["split"].cast("string"), "test"))
    shown = set(of_test.filter(pc.equal(of_test["person_id"], asked))["image_id"].to_pylist())
    others = sorted(set(of_test["image_id"].to_pylist()) - shown)
    return (trained, asked), others[0]


def stamps(store: Path, run: TinyRun) -> dict[str, int]:
    kept = ("ingest:tracks", "detector", "reid")
    folders = [store / Path(*run.outcome.path(stage).parts[-2:]) for stage in kept]
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return {str(file): file.stat().st_mtime_ns for file in files}


def made_of(config: Path, pins: tuple[str, ...], until: str) -> Iterator[tuple[str, Artifact]]:
    """The stages of a config with its models as they are; what is missing is made in this process."""
    loaded = load_config(config, pins)
    store, artifacts = LocalStore(Path(loaded.store)), dict[str, Artifact]()
    for stage in build_stages(loaded):
        planned = resolve(stage, store, artifacts, frozenset(), explain=False)
        assert planned.identity is not None
        if planned.artifact is None:
            make(task_of(planned, planned.identity, store, artifacts), Silent())
        found = store.find(stage.kind, planned.identity.key)
        assert found is not None
        artifacts[stage.name] = found
        yield stage.name, found
        if stage.name == until:
            return


def remade(config: Path, pins: tuple[str, ...], until: str = "report") -> dict[str, Artifact]:
    """The features that the branch was trained on, and what is behind both models."""
    return {**dict(made_of(config, pins[:1], "features")), **dict(made_of(config, pins, until))}


def test_they_are_found_before_and_not_after(case: Case) -> None:
    assert case.outcome.status == 0, case.outcome.stderr
    said = case.outcome.stdout
    before, after = said[said.index("scan before") :].split("scan after: ")
    assert after.startswith("nothing found\n")
    for kind in ("ingest", "features", "detections", "gallery", "evaluation", "report"):
        assert f"  {kind}/" in before, before
    assert "trained on them, and kept" in said and "reid/" in said and "tags: best" in said
    assert tags(case.store) == {"best": case.models["reid"]}


def test_it_is_as_if_the_rows_had_been_edited(
    case: Case, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter of a root whose annotators did it, in the store of before: all digests are the same."""
    (tmp_path / "edited_root.py").write_text(
        f"from tests.edited_prw import Edited\nADAPTER = Edited({case.people!r}, {[case.image]!r})\n"
    )
    info = tmp_path / "edited_root-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edited-root\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[personsearch.datasets]\nedited = edited_root:ADAPTER\n")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(tiny_run.folder, tmp_path / "tiny")
    edited = {"extends": "tiny.yaml", "datasets": {"scenes": {"adapter": "edited", "root": "prw"}}}
    (tmp_path / "tiny" / "edited.yaml").write_text(yaml.safe_dump(edited))
    by_hand = remade(tmp_path / "tiny" / "edited.yaml", case.pins, until="gallery")
    ours = remade(case.folder / "tiny.yaml", case.pins)
    for name, artifact in by_hand.items():
        assert artifact.content_digest == ours[name].content_digest, name
        if name in DATA:
            assert artifact.content_digest != digest_before(tiny_run, name), name
    assert {*DATA} <= ours.keys()


def digest_before(run: TinyRun, stage: str) -> str:
    path = run.outcome.path(stage)
    return LocalStore(run.store).manifest_of(path.parent.name, path.name).content_digest


def test_nothing_was_computed_and_nothing_else_was_touched(case: Case, tiny_run: TinyRun) -> None:
    config = case.folder / "tiny.yaml"
    made = remade(config, case.pins)
    rows = made["features"].manifest.made_by["rows"]
    assert rows["taken"] == rows["of"] < rows_before(tiny_run)
    found = made["detections"].manifest.made_by["rows"]
    assert found["taken"] == found["of"]
    assert {name: Path(name).stat().st_mtime_ns for name in case.stamps} == case.stamps
    plan = {each["stage"]: each for each in plan_config(RunRequest(config=config)).stages}
    assert plan["ingest:scenes"]["state"] == plan["ingest:tracks"]["state"] == "cached"
    assert plan["detector"]["state"] == "runs"  # it learnt boxes that are regions now


def rows_before(run: TinyRun) -> int:
    with open_features(run.outcome.path("features")) as reader:
        return len(reader)


def test_no_file_has_their_names_or_rows(case: Case, tiny_run: TinyRun) -> None:
    """Looked for without the scan: in the bytes of every file."""
    with open_features(tiny_run.outcome.path("features")) as reader:
        mine = pc.fill_null(pc.equal(reader.index["person_id"], case.people[0]), False)
        numbers = np.flatnonzero(mine.to_numpy(zero_copy_only=False))
        assert len(numbers)
        rows = [row.tobytes() for row in reader.rows(numbers)]
    gallery = tiny_run.outcome.path("gallery")
    table = pq.read_table(gallery / "rows.parquet")
    of_image = np.flatnonzero(pc.equal(table["image_id"], case.image).to_numpy(zero_copy_only=False))
    rows += [row.tobytes() for row in np.load(gallery / "embeddings.npy")[of_image]]
    for file in case.store.root.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert case.image.removesuffix(".jpg").encode() not in content, file
            assert not any(row in content for row in rows), file
    for kind, key in case.store.keys("ingest"):
        snapshot = Snapshot(case.store.path_of(kind, key))
        people = set(snapshot.table("boxes")["person_id"].to_pylist())
        assert snapshot.name != "scenes" or not people & set(case.people)


def test_the_same_command_again_has_nothing_to_do(case: Case, in_process: InProcess) -> None:
    there = [entry.name for entry in list_entries(case.store)]
    again = in_process(f"forget --person scenes/{case.people[0]} --store {case.store.root}")
    assert again.status == 0, again.message
    assert (
        "no artifact of the store holds them" in again.output and "scan after: nothing found" in again.output
    )
    assert [entry.name for entry in list_entries(case.store)] == there
    wrong = in_process(f"forget --person scenes/anna --store {case.store.root}")
    assert wrong.status == 2 and "no snapshot of scenes has it" in wrong.message
