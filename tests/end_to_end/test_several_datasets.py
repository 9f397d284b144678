"""A dataset joins the re-ID training: its features are added, and nothing of the first one is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from data_catalog.synthetic import write_prw
from flows.config.loading import load_config
from flows.config.request import RunRequest
from flows.plan.finished import finished_model
from flows.report.model_card import model_card
from flows.run.planning import plan_config
from flows.run.reach import reached_by
from flows.stages.building import build_stages
from storage.feature_store import open_features
from storage.opening import open_store
from tests.end_to_end.commands import Outcome, here
from tests.end_to_end.conftest import TinyRun
from tests.end_to_end.tiny import SCENES

JOINED = {"ingest:others", "features:others"}


@pytest.fixture(scope="module")
def folder(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run, and beside it a second dataset, whose people have the same ids."""
    folder = tmp_path_factory.mktemp("several") / "tiny"
    shutil.copytree(tiny_run.folder, folder)
    write_prw(folder / "others", SCENES, seed=6)
    train = [{"dataset": name, "split": "train"} for name in ("scenes", "others")]
    grown = {
        "extends": "tiny.yaml",
        "datasets": {"others": {"adapter": "prw", "root": "others"}},
        "reid": {"train": train, "identities_per_batch": 4},
    }
    (folder / "grown.yaml").write_text(yaml.safe_dump(grown))
    return folder


@pytest.fixture(scope="module")
def grown(folder: Path, prefect_api: str) -> tuple[dict[str, int], Outcome]:
    """What the first dataset and the detector had on disk before the run, and how the run ended."""
    before = times(folder / "store")
    config = folder / "grown.yaml"
    outcome = here("run", config, "--until", "reid", json_to=folder / "grown.json")
    assert outcome.status == 0, outcome.stderr
    return before, outcome


def times(store: Path) -> dict[str, int]:
    """When each file of an artifact was last changed."""
    kinds = ("ingest", "detector", "features", "detections")
    files = (path for kind in kinds for path in (store / kind).rglob("*") if path.is_file())
    return {str(path.relative_to(store)): path.stat().st_mtime_ns for path in files}


def test_only_what_the_new_dataset_touches_is_made(
    folder: Path, grown: tuple[dict[str, int], Outcome], tiny_run: TinyRun
) -> None:
    before, outcome = grown
    made = {stage for stage, state in outcome.states.items() if state == "made"}
    assert made == JOINED | {"reid"}
    assert outcome.path("features:scenes").name == tiny_run.outcome.path("features").name
    after = times(folder / "store")
    assert {name: after[name] for name in before} == before
    added = {Path(name).parts[:2] for name in after.keys() - before.keys()}
    assert added == {outcome.path(stage).parts[-2:] for stage in JOINED}


def test_the_branch_learns_the_people_of_both(grown: tuple[dict[str, int], Outcome]) -> None:
    _, outcome = grown
    people = 0
    for name in ("scenes", "others"):
        with open_features(outcome.path(f"features:{name}")) as reader:
            assert set(reader.index["dataset"].to_pylist()) == {name}
            counts = reader.index["person_id"].drop_null().value_counts().to_pylist()
            people += sum(each["counts"] > 1 for each in counts)
    made = next(stage for stage in outcome.data["stages"] if stage["stage"] == "reid")
    history = pq.read_table(Path(made["path"]) / "history.parquet")
    assert {"loss/scenes", "loss/others"} <= set(history.column_names)
    described = yaml.safe_load((Path(made["path"]) / "branch.json").read_text())
    assert described["training_identities"] == people
    assert list(described["identities_per_epoch"]) == ["others", "scenes"]


def test_the_model_card_names_both(folder: Path, grown: tuple[dict[str, int], Outcome]) -> None:
    assert grown[1].status == 0
    card = model_card(finished_model(folder / "grown.yaml"))
    assert "re-ID branch: others, split train" in card
    assert "trained on others and scenes and tracks" in card


def test_plan_gc_and_mend_know_both_stores(folder: Path, grown: tuple[dict[str, int], Outcome]) -> None:
    _, outcome = grown
    config = folder / "grown.yaml"
    plan = plan_config(RunRequest(config=config, until="reid"))
    assert {stage["state"] for stage in plan.stages} == {"cached"}
    loaded = load_config(config)
    stores = {f"features/{outcome.path(f'features:{name}').name}" for name in ("scenes", "others")}
    assert stores <= reached_by(build_stages(loaded), open_store(loaded.store)).names

    others = outcome.path("features:others")
    (shard,) = (path for path in (others / "features" / "c").rglob("*") if path.is_file())
    whole = shard.read_bytes()
    shard.chmod(0o644)
    shard.write_bytes(whole[:100] + bytes(100) + whole[200:])
    mended = here("features", "verify", f"features/{others.name}", "--mend", config)
    assert mended.status == 0, mended.stderr
    assert shard.read_bytes() == whole
