"""What later stages need of the data is missed before anything is trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.config.loading import load_config
from flows.config.models import Config
from flows.config.request import RunRequest
from flows.errors import StageError
from flows.plan.readiness import check_ready
from flows.plan.states import resolve
from flows.run.making import make_in_process
from flows.run.planning import plan_config
from flows.run.running import run_config
from flows.stages.base import Stage
from flows.stages.building import build_stages
from storage.local import LocalStore
from storage.store import Artifact


def ingested(
    config_path: Path, store: Path, *overrides: str
) -> tuple[Config, list[Stage], dict[str, Artifact]]:
    """A config's stages, and the artifacts of its ingests, each made in its own process as in a run."""
    config = load_config(config_path, overrides, store=str(store))
    stages, local = build_stages(config), LocalStore(store)
    artifacts: dict[str, Artifact] = {}
    for stage in stages:
        if stage.kind == "ingest":
            planned = resolve(stage, local, artifacts, frozenset())
            artifacts[stage.name] = planned.artifact or make_in_process(
                planned, local, artifacts, on_progress=lambda *_: None
            )
    return config, stages, artifacts


@pytest.fixture
def case(shared: Path, tmp_path: Path) -> Path:
    """A writable copy of a case whose data is sound but for one image that is cut short."""
    return Path(shutil.copytree(shared / "cases" / "truncated_image_late", tmp_path / "case"))


def refusal(config_path: Path, store: Path, *overrides: str, decode: bool = True) -> str:
    config, stages, artifacts = ingested(config_path, store, *overrides)
    with pytest.raises(StageError) as refused:
        check_ready(config, stages, artifacts, LocalStore(store), decode=decode)
    return str(refused.value)


def test_an_image_that_does_not_decode(case: Path, tmp_path: Path) -> None:
    store, config_path = tmp_path / "store", case / "tiny.yaml"
    said = refusal(config_path, store)
    assert (
        said.startswith("scenes: 1 image cannot be decoded: ") and "datasets.scenes.options.leave_out" in said
    )
    name = said.partition("frames/")[2].partition(":")[0]
    config, stages, artifacts = ingested(config_path, store)
    check_ready(config, stages, artifacts, LocalStore(store), decode=False)
    config, stages, artifacts = ingested(config_path, store, "run.check_images=false")
    check_ready(config, stages, artifacts, LocalStore(store))
    config, stages, artifacts = ingested(
        config_path, store, f"datasets.scenes.options.leave_out=frames/{name}"
    )
    check_ready(config, stages, artifacts, LocalStore(store))


def test_an_image_whose_header_is_gone(case: Path, tmp_path: Path) -> None:
    """The ingest has it among its rejects, with its boxes; that is not to be found out by a worse result."""
    cut = refusal(case / "tiny.yaml", tmp_path / "store")
    damaged = cut.partition("frames/")[2].partition(":")[0]
    (case / "prw" / "frames" / damaged).write_bytes(b"")
    said = refusal(case / "tiny.yaml", tmp_path / "store")
    assert said.startswith("scenes: 1 image cannot be decoded: ") and damaged in said
    leave_out = f"datasets.scenes.options.leave_out=frames/{damaged}"
    config, stages, artifacts = ingested(case / "tiny.yaml", tmp_path / "store", leave_out)
    check_ready(config, stages, artifacts, LocalStore(tmp_path / "store"))


def test_queries_that_are_missing(shared: Path, tmp_path: Path) -> None:
    said = refusal(shared / "cases" / "queries_missing_late" / "tiny.yaml", tmp_path / "store")
    assert said.startswith("scenes: no protocol 'prw'") and said.endswith("query_info.txt is missing)")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reid.identities_per_batch=40", "identities with two boxes or more, but a batch takes 40"),
        (
            "evaluation.test.split=train",
            "queries of protocol 'prw' are in images that split 'train' does not have",
        ),
        ("detector.train.0.split=val", "no images in split 'val'; there is: test, train"),
        ("detector.train.0.min_height=5000", "images of split 'train' has a box of a person"),
    ],
)
def test_what_the_stages_need(override: str, message: str, case: Path, tmp_path: Path) -> None:
    assert message in refusal(case / "tiny.yaml", tmp_path / "store", override, decode=False)


def test_all_that_is_missing_is_said_at_once(case: Path, tmp_path: Path) -> None:
    (case / "prw" / "query_info.txt").unlink()
    said = refusal(case / "tiny.yaml", tmp_path / "store", "reid.identities_per_batch=40")
    assert "a batch takes 40" in said and "query_info.txt is missing" in said and "cannot be decoded" in said


def test_a_plan_and_a_second_run_name_the_missing_file_too(case: Path, tmp_path: Path) -> None:
    (case / "prw" / "query_info.txt").unlink()
    store = tmp_path / "store"
    ingested(case / "tiny.yaml", store)
    few = ("reid.identities_per_batch=40",)
    request = RunRequest(config=case / "tiny.yaml", overrides=few, store=str(store))
    for begin in (plan_config, run_config):
        with pytest.raises(StageError, match=r"a batch takes 40.*query_info\.txt is missing"):
            begin(request)
