"""Planted changes of a finished run, and what `diff --attribute` says of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.config.request import RunRequest
from flows.run.comparing import compare
from flows.run.records import read_records
from flows.run.running import plan_config
from storage.local import LocalStore
from tests.end_to_end.commands import personsearch
from tests.end_to_end.conftest import TinyRun

RATE, SEED = "reid.lr=0.1", "reid.seed=5"


@pytest.fixture
def copy(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """The config of a copy of the finished run."""
    shutil.copytree(tiny_run.folder, tmp_path / "tiny")
    return tmp_path / "tiny" / "tiny.yaml"


def test_a_planted_rate_and_seed_are_found_from_caches_alone(copy: Path, tiny_run: TinyRun) -> None:
    store = LocalStore(copy.parent / "store")
    before = f"evaluation/{tiny_run.outcome.path('evaluation').name}"
    changed = personsearch("run", copy, "--set", RATE, "--set", SEED, "--until", "evaluation")
    assert changed.status == 0, changed.stderr
    after = next(read_records(store.root)).name
    # No image is needed: what the changes need is cached.
    shutil.rmtree(copy.parent / "prw" / "frames")
    page, data = copy.parent / "diff.html", copy.parent / "diff.json"
    found = personsearch(
        "diff", before, after, "--attribute", "--html", page, "--store", store.root, json_to=data
    )
    assert found.status == 0, found.stderr
    assert {each["name"] for each in found.data["recipes"]} == {"reid.lr"}
    assert {each["name"] for each in found.data["seeds"]} == {"reid.seed"}
    assert found.data["attribution"]["made"] == {"reid": 2, "gallery": 2, "evaluation": 2}
    assert "2 reid" in found.stdout or "reid" in found.stdout
    account = next(each for each in found.data["attribution"]["accounts"] if each["metric"] == "mAP")
    rate, seed = account["shares"]
    assert (rate["factor"], seed["factor"]) == ("reid.lr", "reid.seed")
    total = account["total"]["difference"]
    assert rate["alone"]["difference"] + seed["last"]["difference"] == pytest.approx(total)
    assert rate["both"]["difference"] + seed["both"]["difference"] == pytest.approx(total)
    assert account["rebuilt"] is None and account["left_over"] == pytest.approx(0, abs=1e-9)

    # What a factor does alone is what an ordinary run with that change alone does: it finds it made.
    request = RunRequest(config=copy, overrides=(RATE,), until="evaluation")
    alone = {each["stage"]: each for each in plan_config(request).stages}
    artifact = store.find("evaluation", alone["evaluation"]["key"])
    assert artifact is not None and alone["evaluation"]["state"] == "cached"
    first = store.find(*before.split("/"))
    assert first is not None
    compared = compare(store, first, artifact, "mAP")
    assert compared is not None
    assert compared.difference == pytest.approx(rate["alone"]["difference"])

    text = page.read_text()
    assert "<code>reid.lr</code>" in text and "What explains it" in text
    assert "There are no pictures: report: the test image" in text, "the images are gone"


def test_without_the_images_that_it_needs_attribution_is_refused(copy: Path, tiny_run: TinyRun) -> None:
    store = LocalStore(copy.parent / "store")
    before = f"evaluation/{tiny_run.outcome.path('evaluation').name}"
    changes = ("--set", "detections.max_per_image=3", "--set", RATE)
    assert personsearch("run", copy, *changes, "--until", "evaluation").status == 0
    after = next(read_records(store.root)).name
    (key,) = (each["key"] for each in next(read_records(store.root)).stages if each["stage"] == "gallery")
    store.remove("gallery", key)
    dry = personsearch("diff", before, after, "--attribute", "--dry-run", "--store", store.root)
    assert dry.status == 0 and "to be built" in dry.stdout, dry.stderr
    detections = next(each for each in next(read_records(store.root)).stages if each["stage"] == "detections")
    store.remove("detections", detections["key"])
    shutil.rmtree(copy.parent / "prw" / "frames")
    refused = personsearch("diff", before, after, "--attribute", "--store", store.root)
    assert refused.status == 2 and "detections has to be built" in refused.stderr
    assert "8 of 8 are not in" in refused.stderr and "without --attribute" in refused.stderr
