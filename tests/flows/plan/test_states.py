"""A plan only looks: it fetches nothing that it need not read, and moves nothing."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from data_catalog.parallel import cores
from flows.config.models import Config
from flows.config.sections import Processors
from flows.errors import ConfigError
from flows.plan import views
from flows.plan.states import Planned, make_plan, require_synchronised_norms
from flows.plan.views import ViewSpec, view_digest
from flows.provenance import chosen_threads
from flows.stages.base import InputRef, Stage, processors_of
from storage.local import LocalStore
from storage.manifest import Identity
from storage.remote import RemoteStore
from tests.storage.making import make_artifact, name_of


def stage(kind: str, *inputs: InputRef) -> Stage:
    """The stage whose artifact `make_artifact` makes."""
    named = {str(number): ref for number, ref in enumerate(inputs)}
    return Stage(kind, kind, version=1, recipe={"seed": 0}, maker="nobody:make", inputs=named)


def test_what_is_cached_on_object_storage_is_not_fetched(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    one, two = (RemoteStore(url, tmp_path / machine) for machine in ("one", "two"))
    features = make_artifact(one, "features")
    make_artifact(one, "reid", sources=(features,))
    plan = make_plan([stage("features"), stage("reid", InputRef("features"))], two)
    assert [planned.state for planned in plan] == ["cached", "cached"]
    assert plan[0].artifact is not None and plan[0].artifact.content_digest == features.content_digest
    assert not (tmp_path / "two").exists()
    (data,) = (path for path in two.system.find(f"{two.prefix}/features") if path.endswith("data.bin"))
    two.system.rm_file(data)
    (damaged,) = make_plan([stage("features")], two)
    assert damaged.reason == "its artifact is damaged: nested/data.bin is missing"
    assert [f"{kind}/{key}" for kind, key in two.keys("features")] == [name_of(features)]


@pytest.mark.parametrize(
    ("device", "norm", "state", "refused"),
    [
        ("cpu", "batch", "runs", True),
        ("cpu", "batch", "cached", False),
        ("cpu", "frozen_batch", "runs", False),
        ("cuda", "batch", "runs", False),
    ],
)
def test_batch_norms_that_nothing_synchronises_are_refused_before_anything_runs(
    device: str, norm: str, state: Literal["runs", "cached"], refused: bool
) -> None:
    config = Config.model_validate(
        {
            "store": "artifacts",
            "datasets": {"prw": {"adapter": "prw", "root": "PRW"}},
            "detector": {"train": [{"dataset": "prw", "split": "train"}], "model": {"norm": norm}},
            "run": {"device": device, "nodes": 2, "rendezvous": "10.0.0.5"},
        }
    )
    detector = replace(stage("detector"), processors=processors_of(config, several=True))
    plan = [Planned(stage("ingest"), state, ""), Planned(detector, state, "")]
    with pytest.raises(ConfigError, match=r"detector\.model\.norm: batch") if refused else nullcontext():
        require_synchronised_norms(config, plan)


def test_a_snapshot_is_fetched_where_the_digest_of_its_view_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{tmp_path.name}"
    one, two = (RemoteStore(url, tmp_path / machine) for machine in ("one", "two"))
    make_artifact(one, "ingest")
    read = []

    def digest(snapshot: Path, spec: ViewSpec) -> str:
        read.append((snapshot / "note.txt").read_text())
        return "ab12"

    monkeypatch.setattr(views, "_digest", digest)
    stages = [stage("ingest"), stage("detector", InputRef("ingest", ViewSpec("d", "train", "boxes")))]
    for _ in range(2):
        plan = make_plan(stages, two)
        assert plan[1].identity is not None and plan[1].identity.inputs == {"0": "ab12"}
    assert read == ["ingest 0"] and (tmp_path / "two" / "ingest").exists()


def test_a_damaged_memory_of_a_view_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = LocalStore(tmp_path)
    made, spec = make_artifact(store, "ingest"), ViewSpec("d", "train", "boxes")
    monkeypatch.setattr(views, "_digest", lambda *_: "ab12")
    assert view_digest(made, spec, store) == "ab12"
    (memo,) = (tmp_path / ".cache" / "views").iterdir()
    memo.write_bytes(b"\xe1" + memo.read_bytes()[1:])
    assert view_digest(made, spec, store) == "ab12" and "is damaged" in caplog.text
    monkeypatch.setattr(views, "_digest", lambda *_: pytest.fail("it is remembered"))
    assert view_digest(made, spec, store) == "ab12"


def test_why_a_stage_is_new_is_told_by_its_newest_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    for seed in range(4, 0, -1):
        make_artifact(store, "features", seed)
    read = []
    monkeypatch.setattr("storage.recent.REMEMBERED", 2)
    monkeypatch.setattr(store, "peek", lambda *name: read.append(name) or LocalStore(tmp_path).peek(*name))
    (planned,) = make_plan([stage("features")], store)
    assert planned.reason.startswith("new: seed ") and len(read) == 2


def test_a_plan_leaves_what_is_damaged_where_it_is(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    data = make_artifact(store, "features").path / "nested" / "data.bin"
    data.write_bytes(b"rowz")
    (planned,) = make_plan([stage("features")], store)
    assert planned.state == "runs"
    assert planned.reason == "its artifact is damaged: nested/data.bin does not match its digest"
    assert data.exists() and not (tmp_path / ".damaged").exists()


def test_a_dataset_is_not_compared_with_another_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)

    def ingest(dataset: str, adapter: str) -> Stage:
        recipe = {"dataset": dataset, "adapter": adapter}
        return Stage("ingest:x", "ingest", version=1, recipe=recipe, maker="nobody:make")

    (planned,) = make_plan([ingest("prw", "prw")], store)
    assert planned.identity is not None
    with store.making(planned.identity) as work:
        work.commit("digest")
    assert make_plan([ingest("mot17", "mot17")], store)[0].reason == "not built in this store yet"
    assert make_plan([ingest("prw", "coco")], store)[0].reason == "new: adapter 'prw' -> 'coco'"


@pytest.mark.parametrize(
    ("kind", "made_by", "now", "note"),
    [
        ("detector", {"device": "cpu", "threads": 4, "cpus": 8}, 2, " with 4 CPU threads, not 2 as now"),
        (
            "detections",
            {"device": "cpu", "threads": None, "cpus": 64},
            2,
            " with 64 CPU threads, not 2 as now",
        ),
        ("detector", {"device": "cpu", "threads": 2, "cpus": 8}, 2, ""),
        ("detector", {"device": "cuda", "threads": 4, "cpus": 8}, 2, ""),
        ("features", {"device": "cpu", "threads": 4, "cpus": 8}, 2, ""),
    ],
)
def test_a_plan_says_what_was_built_with_other_threads(
    kind: str, made_by: dict[str, object], now: int, note: str, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path)
    planned = replace(stage(kind), processors=Processors(device="cpu", threads=now))
    with store.making(Identity(kind=kind, version=1, recipe={"seed": 0}, inputs={})) as work:
        made = work.commit("digest", made_by=made_by)
    (found,) = make_plan([planned], store)
    assert found.reason == f"built {made.manifest.created}{note}"


def test_the_number_of_threads_is_the_configs_or_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert (chosen_threads(2), chosen_threads(None)) == (2, 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert chosen_threads(None) == 4
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert chosen_threads(None) == cores()
