"""A night with a pinned model: the data grows, nothing is trained, and a tag moves as the results allow."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from flows.config.loading import load_config
from flows.config.request import RunRequest
from flows.plan.finished import finished_model
from flows.report.model_card import write_model
from flows.run.planning import plan_config
from flows.run.records import read_records
from storage.local import LocalStore
from storage.tags import set_tag, tags
from tests.end_to_end.commands import Outcome, here
from tests.end_to_end.conftest import TinyRun

PINNED = ("detector={use: production}", "reid={use: production}")
PROMOTE = "promote={tag: production}"


@pytest.fixture
def copy(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """The config of a copy of the finished run."""
    shutil.copytree(tiny_run.folder, tmp_path / "tiny")
    return tmp_path / "tiny" / "tiny.yaml"


def add_image(root: Path, split: str) -> None:
    """An image of another camera's name, with the boxes of the split's first."""
    file, field = root / f"frame_{split}.mat", f"img_index_{split}"
    names = [str(cell.item().item()) for cell in loadmat(file)[field].ravel()]
    new = f"c1s1_00999{len(split)}"
    for suffix, folder in ((".jpg", "frames"), (".jpg.mat", "annotations")):
        shutil.copy(root / folder / f"{names[0]}{suffix}", root / folder / f"{new}{suffix}")
    with (root / "frames" / f"{new}.jpg").open("ab") as image:
        image.write(b"another image, by its bytes")
    cells = np.empty((len(names) + 1, 1), dtype=object)
    for row, name in enumerate([*names, new]):
        cells[row, 0] = np.array([[name]], dtype=object)
    savemat(file, {field: cells})


def run(config: Path, *changes: str, until: str = "evaluation") -> Outcome:
    words = [word for change in changes for word in ("--set", change)]
    return here("run", config, "--until", until, *words, json_to=config.parent / "outcome.json")


def test_a_pinned_model_through_growth_promotion_and_bad_nights(copy: Path, tiny_run: TinyRun) -> None:
    store, inbox = LocalStore(copy.parent / "store"), copy.parent / "inbox"
    branch = f"reid/{tiny_run.outcome.path('reid').name}"
    detector = f"detector/{tiny_run.outcome.path('detector').name}"
    notify = f"run.notify=[tee, -a, {inbox}]"

    # A night before there is a model fails with one line, which is told.
    early = run(copy, *PINNED, notify)
    assert early.status == 2 and "has no tag 'production'" in early.stderr
    assert "has no tag 'production'" in inbox.read_text()

    # The first model gets the tag, although nothing is to be built.
    first = run(copy, PROMOTE, notify)
    assert first.status == 0 and first.data["promotion"]["outcome"] == "first", first.stderr
    assert tags(store) == {"production": branch} and len(inbox.read_text().splitlines()) == 1

    exported = copy.parent / "model"
    finished = finished_model(copy)
    write_model(finished, exported)
    for kept, least in ((0.9, 0.9), (0.1, 0.3)):
        thresholds = (f"detections.score_threshold={kept}", "evaluation.score_threshold=0.3")
        changed = load_config(copy, thresholds)
        assert replace(finished, config=changed).finding()["score_threshold"] == least
    for split in ("train", "test"):
        add_image(copy.parent / "prw", split)
    night = run(copy, *PINNED, notify)
    assert night.status == 0, night.stderr
    made = {stage for stage, state in night.states.items() if state == "made"}
    assert made == {"ingest:scenes", "detections", "gallery", "evaluation"} and "features" not in night.states
    assert f"detector/{night.path('detector').name}" == detector
    assert night.path("evaluation") != tiny_run.outcome.path("evaluation")
    assert "scenes/train had 12 images" in night.stderr and "since then +1 images" in night.stderr
    said = {stage["stage"]: stage.get("pinned") for stage in next(read_records(store.root)).stages}
    assert (said["reid"]["use"], said["reid"]["tagged"], said["detector"]["artifact"]) == (
        "production",
        branch,
        detector,
    )
    plan = {each["stage"]: each for each in plan_config(RunRequest(config=copy, overrides=PINNED)).stages}
    assert plan["detector"]["state"] == plan["detections"]["state"] == "cached"
    assert plan["detector"]["reason"].startswith(
        f"pinned: production is {branch}, trained on {detector}, built "
    )
    unpinned = {each["stage"]: each["state"] for each in plan_config(RunRequest(config=copy)).stages}
    assert unpinned["detector"] == "runs"

    # Another artifact with the same weights: the detections stay, and the comparison allows it.
    folder = f"{{use: {exported}}}"
    imported = run(copy, f"detector={folder}", f"reid={folder}", PROMOTE, notify, until="report")
    assert imported.status == 0, imported.stderr
    states = imported.states
    assert states["detections"] == "cached" and states["detector"] == states["reid"] == "made"
    assert imported.data["promotion"]["outcome"] == "allowed", imported.data["promotion"]
    assert "mAP +0.0 points" in imported.data["promotion"]["text"]
    assert tags(store)["production"] == f"reid/{imported.path('reid').name}"
    page = Path(imported.data["report"]).read_text()
    assert f"<b>detector</b> pinned: the model in {exported}, built " in page
    assert "scenes/train had 12 images" in page and "since then +1 images" in page
    assert f"When this page was built: tag production: goes from {branch} to reid/" in page

    # Not comparable: what has the tag was never tested. The tag stays, and that is told; the run succeeds.
    set_tag(store, "production", f"speed/{speed(store)}")
    unknown = run(copy, f"detector={{use: {branch}}}", f"reid={{use: {branch}}}", PROMOTE, notify)
    assert unknown.status == 0, unknown.stderr
    assert unknown.data["promotion"]["outcome"] == "unknown" and tags(store)["production"].startswith(
        "speed/"
    )
    assert (
        "stays at speed/" in inbox.read_text().splitlines()[-1]
        and "warning: tag production" in unknown.stderr
    )
    (record,) = (each for each in read_records(store.root) if each.promotion == unknown.data["promotion"])
    assert json.loads(record.path.read_text())["bad_news"]


def speed(store: LocalStore) -> str:
    """The key of an artifact that no evaluation was made from."""
    from tests.storage.making import make_artifact

    return make_artifact(store, "speed").key
