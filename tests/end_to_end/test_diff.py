"""Planted changes of a finished run, and what `diff --attribute` says of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.config.request import RunRequest
from flows.run.planning import plan_config
from flows.run.records import read_records
from storage.local import LocalStore
from tests.end_to_end.commands import here
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
    changed = here("run", copy, "--set", RATE, "--set", SEED, "--until", "evaluation")
    assert changed.status == 0, changed.stderr
    after = next(read_records(store.root)).name
    # No image is needed: what the changes need is cached.
    frames, away = copy.parent / "prw" / "frames", copy.parent / "away"
    frames.rename(away)
    page, data = copy.parent / "diff.html", copy.parent / "diff.json"
    found = here("diff", before, after, "--attribute", "--html", page, "--store", store.root, json_to=data)
    assert found.status == 0, found.stderr
    assert {each["name"] for each in found.data["recipes"]} == {"reid.lr"}
    assert {each["name"] for each in found.data["seeds"]} == {"reid.seed"}
    assert found.data["attribution"]["made"] == {"reid": 2, "gallery": 2, "evaluation": 2}
    assert "6 to build" in found.stdout
    account = next(each for each in found.data["attribution"]["accounts"] if each["metric"] == "mAP")
    assert [each["factor"] for each in account["shares"]] == ["reid.lr", "reid.seed"]
    assert all(each["both"] is not None for each in account["shares"])
    assert account["total"]["queries"] == 8 and account["rebuilt"] is None
    # This tiny model finds nobody, so the figures are zero: sums are tested in tests/flows/compare.
    away.rename(frames)
    # What a factor does alone is what an ordinary run with that change alone does: it finds it made.
    request = RunRequest(config=copy, overrides=(RATE,), until="evaluation")
    alone = {each["stage"]: each for each in plan_config(request).stages}
    artifact = store.find("evaluation", alone["evaluation"]["key"])
    assert artifact is not None and alone["evaluation"]["state"] == "cached"

    text = page.read_text()
    assert "<code>reid.lr</code>" in text and "What explains it" in text
    assert "Queries that moved" in text
