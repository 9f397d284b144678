"""A sample of tests/campaigns/damage.py, and a run that reads every byte first."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from flows.config.loading import load_config
from flows.plan.states import make_plan
from flows.search import build_index, open_index
from flows.search.approximate import build_approximate
from flows.search.layout import Settings
from flows.search.model import given_model
from flows.stages.building import build_stages
from storage.local import LocalStore
from storage.opening import open_store
from tests.campaigns.damage import (
    Subject,
    artifact,
    damage_all,
    exported_model,
    put_back,
    same_size_and_time,
    search_index,
)
from tests.end_to_end.commands import here
from tests.end_to_end.conftest import TinyRun

SAMPLE = int(os.environ.get("PERSONSEARCH_DAMAGE_SAMPLE", "5"))
"""Cases per subject."""
KINDS = ("ingest", "detector", "features", "reid", "detections", "gallery", "evaluation", "report")


@pytest.fixture(scope="module")
def config(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run to be damaged, with an exported model and an index of some of its scenes."""
    folder = tmp_path_factory.mktemp("damage") / "tiny"
    shutil.copytree(tiny_run.folder, folder)
    config = folder / tiny_run.config.name
    model = given_model(config)
    (folder / "model").mkdir()
    model.save(folder / "model")
    frames = sorted((folder / "prw" / "frames").iterdir())[:3]
    build_index(folder / "index", frames, model, settings=Settings(score_threshold=0.0, max_per_image=4))
    build_approximate(open_index(folder / "index"))
    return config


def subject(name: str, config: Path) -> Subject:
    store = config.parent / "store"
    if name in KINDS:
        return artifact(store, *next(LocalStore(store).keys(name)))
    if name == "model":
        return exported_model(config.parent / "model")
    return search_index(config.parent / "index")


@pytest.mark.parametrize("name", [*KINDS, "model", "index"])
def test_damage_is_told_with_the_name_of_the_file(name: str, config: Path) -> None:
    found = damage_all(subject(name, config), 1, random.Random(name), SAMPLE)
    assert not found.faults and sum(found.told.values())


def test_a_plan_that_verifies_sees_what_size_and_time_hide(config: Path) -> None:
    store = LocalStore(config.parent / "store")
    stages = build_stages(load_config(config))
    gallery, evaluation = (
        artifact(store.root, *next(store.keys(kind))) for kind in ("gallery", "evaluation")
    )
    embeddings = next(path for path in gallery.files() if path.name.startswith("embeddings"))
    metrics = next(path for path in evaluation.files() if path.name == "metrics.json")
    careful = open_store(str(store.root), verify_first=True)
    assert not gallery.next_use() and not evaluation.next_use(), "trusted from now on"
    with put_back(metrics):
        same_size_and_time(metrics, metrics, random.Random(0))
        with put_back(embeddings):
            same_size_and_time(embeddings, embeddings, random.Random(0))
            assert {each.state for each in make_plan(stages, store)} == {"cached"}
            states = {each.stage.name: each for each in make_plan(stages, careful)}
            assert states["gallery"].reason == (
                f"its artifact is damaged: {embeddings.name} does not match its digest"
            )
            assert states["evaluation"].reason == "gallery must be built first"
        # The gallery is whole again, as if it had been rebuilt; now the evaluation is looked at.
        states = {each.stage.name: each for each in make_plan(stages, careful)}
        assert states["gallery"].state == "cached"
        assert (
            states["evaluation"].reason == "its artifact is damaged: metrics.json does not match its digest"
        )
    assert {each.state for each in make_plan(stages, careful)} == {"cached"}


def test_run_verify_rebuilds_what_is_damaged(config: Path, tmp_path: Path) -> None:
    store = LocalStore(config.parent / "store")
    damaged = artifact(store.root, *next(store.keys("evaluation")))
    assert not damaged.next_use(), "trusted from now on"
    same_size_and_time(damaged.files()[0], damaged.files()[0], random.Random(0))
    assert not damaged.next_use()
    verified = here("run", config, "--verify", "--until", "evaluation", json_to=tmp_path / "built.json")
    assert verified.status == 0, verified.stderr
    assert [stage for stage, state in verified.states.items() if state == "made"] == ["evaluation"]
    assert not [problem for kind, key in sorted(store.keys()) for problem in store.verify(kind, key)]
