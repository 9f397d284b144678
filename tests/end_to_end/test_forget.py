"""People and an image are forgotten: nothing of them is left, and the rest is as if they were never there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_catalog.snapshot import Snapshot
from flows.config.request import RunRequest
from flows.forget.forgetting import plan_forgetting
from flows.forget.remaking import note
from flows.forget.subject import Subject
from flows.plan.forgotten_list import ForgottenList
from flows.run.planning import plan_config
from storage.feature_store import open_features
from storage.listing import list_entries
from storage.local import LocalStore
from storage.tags import set_tag, tags
from tests.end_to_end.commands import Outcome, here
from tests.end_to_end.conftest import TinyRun
from tests.forgetting import edited_config, remade, whom
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
    outcome = here("forget", *words, "--image", f"scenes/{image}", "--config", folder / "tiny.yaml")
    return Case(folder, people, image, outcome, models, before)


def stamps(store: Path, run: TinyRun) -> dict[str, int]:
    kept = ("ingest:tracks", "detector", "reid")
    folders = [store / Path(*run.outcome.path(stage).parts[-2:]) for stage in kept]
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return {str(file): file.stat().st_mtime_ns for file in files}


def test_they_are_found_before_and_not_after(case: Case) -> None:
    assert case.outcome.status == 0, case.outcome.stderr
    said = case.outcome.stdout
    before, after = said[said.index("scan before") :].split("scan after: ")
    assert after.startswith("nothing found\n")
    for kind in ("ingest", "features", "detections", "gallery", "evaluation", "report"):
        assert f"  {kind}/" in before, before
    assert "models trained on them are kept" in said and "reid/" in said and "tags: best" in said
    assert tags(case.store) == {"best": case.models["reid"]}


def test_it_is_as_if_the_rows_had_been_edited(
    case: Case, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter of a root whose annotators did it, in the store of before: all digests are the same."""
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(tiny_run.folder, tmp_path / "tiny")
    edited = edited_config(tmp_path, tmp_path / "tiny" / "tiny.yaml", "scenes", case.people, case.image)
    by_hand = remade(edited, case.pins, until="gallery")
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
        snapshot = Snapshot(case.store.place.path_of(kind, key))
        people = set(snapshot.table("boxes")["person_id"].to_pylist())
        assert snapshot.name != "scenes" or not people & set(case.people)


def test_the_same_command_again_has_nothing_to_do(case: Case, in_process: InProcess) -> None:
    there = [entry.name for entry in list_entries(case.store)]
    again = in_process(f"forget --person scenes/{case.people[0]} --store {case.store.root}")
    assert again.status == 0, again.message
    assert (
        "no artifact in the store holds them" in again.output and "scan after: nothing found" in again.output
    )
    assert [entry.name for entry in list_entries(case.store)] == there
    wrong = in_process(f"forget --person scenes/anna --store {case.store.root}")
    assert wrong.status == 2 and "no snapshot of scenes has it" in wrong.message
