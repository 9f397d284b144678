"""Re-ID from several datasets: a features stage for each, and what the keys depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from data_catalog.adapters.protocol import Layout
from data_catalog.ingest import Fingerprint
from flows.config.loading import load_config
from flows.config.models import Config
from flows.errors import ConfigError
from flows.plan.states import select
from flows.stages import ingest
from flows.stages.base import InputRef, Stage
from flows.stages.building import build_stages
from flows.studies.cells import source_of
from flows.studies.loading import Loader
from flows.studies.members import Member
from flows.studies.models import Column
from flows.studies.nodes import Nodes
from flows.studies.work import ToMake, work
from storage.manifest import Identity

PRW = {"dataset": "prw", "split": "train"}
CUHK = {"dataset": "cuhk", "split": "train"}


@pytest.fixture(autouse=True)
def known_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_fingerprint", lambda *_, **__: Fingerprint("files", Layout(()), {}, {}))


def write(folder: Path, train: Any) -> Path:
    for name in ("prw", "cuhk"):
        (folder / name).mkdir(exist_ok=True)
    fields = {
        "store": "store",
        "datasets": {
            "prw": {"adapter": "prw", "root": "prw"},
            "cuhk": {"adapter": "cuhk-sysu", "root": "cuhk"},
        },
        "detector": {"train": [PRW]},
        "reid": {"train": train},
        "evaluation": {"test": {"dataset": "prw", "split": "test"}},
        "run": {"memory_budget_gib": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    return folder / "config.yaml"


def config_of(folder: Path, train: Any) -> Config:
    return load_config(write(folder, train))


def stages_of(folder: Path, train: Any) -> dict[str, Stage]:
    return {stage.name: stage for stage in build_stages(config_of(folder, train))}


def test_a_gallery_knows_whether_its_branch_normalises(tmp_path: Path) -> None:
    """The weights of the branch, and so the digest of its content, are the same with and without."""
    path = write(tmp_path, [PRW])
    plain, free = (
        next(stage for stage in build_stages(load_config(path, changes)) if stage.kind == "gallery")
        for changes in ([], ["reid.branch.normalise=false"])
    )
    assert (dict(plain.fixed_inputs), dict(free.fixed_inputs)) == ({}, {"normalise": "false"})


def test_a_detector_that_several_machines_train_runs_alone(tmp_path: Path) -> None:
    path = write(tmp_path, [PRW])
    here, joined = (
        {stage.name: stage for stage in build_stages(load_config(path, changes))}
        for changes in ([], ["run.nodes=2", "run.rendezvous=127.0.0.1"])
    )
    assert [name for name, stage in joined.items() if stage.alone] == ["detector"]
    assert not any(stage.alone for stage in here.values())
    assert key(here["detector"]) == key(joined["detector"])


def key(stage: Stage) -> str:
    """With stand-ins for the digests of what the stage takes, by the stage and the view that it is from."""
    inputs = {name: f"{ref.stage.partition(':')[0]} {ref.view}" for name, ref in stage.inputs.items()}
    return Identity(kind=stage.kind, version=stage.version, recipe=stage.recipe, inputs=inputs).key


def test_each_dataset_has_features_of_its_own(tmp_path: Path) -> None:
    stages = stages_of(tmp_path, [PRW | {"min_height": 50}, CUHK])
    assert [name for name in stages if not name.startswith("ingest")][:4] == [
        "detector",
        "features:cuhk",
        "features:prw",
        "reid",
    ]
    view = stages["features:prw"].inputs["people"].view
    assert view is not None and (view.dataset, view.split, view.min_height) == ("prw", "train", 50)
    assert dict(stages["reid"].inputs) == {
        "features0": InputRef("features:cuhk"),
        "features1": InputRef("features:prw"),
        "detector": InputRef("detector"),
    }
    assert {name for name in stages["report"].inputs if name.startswith("features")} == {
        "features:cuhk",
        "features:prw",
    }
    assert stages["report"].options["reid_trained_on"] == ["prw/train", "cuhk/train"]
    assert stages["reid"].options["datasets"] == ["cuhk", "prw"]
    assert stages["features:prw"].bytes_needed is not None


def test_a_dataset_that_joins_leaves_the_keys_of_the_others(tmp_path: Path) -> None:
    alone, both = stages_of(tmp_path, PRW), stages_of(tmp_path, [PRW, CUHK])
    assert key(alone["features"]) == key(both["features:prw"])
    for name in ("detector", "ingest:prw", "detections"):
        assert key(alone[name]) == key(both[name])
    assert key(alone["reid"]) != key(both["reid"])


@pytest.mark.parametrize("amount", [{}, {"repeat": 1}, {"proportion": 0.25}])
def test_a_list_of_one_has_the_key_of_a_view_alone(tmp_path: Path, amount: dict[str, float]) -> None:
    alone, listed = stages_of(tmp_path, PRW), stages_of(tmp_path, [PRW | amount])
    assert alone.keys() == listed.keys()
    assert {name: (key(stage), stage.options) for name, stage in alone.items()} == {
        name: (key(stage), stage.options) for name, stage in listed.items()
    }
    assert "amounts" not in alone["reid"].recipe


def test_the_key_has_amounts_and_no_order(tmp_path: Path) -> None:
    def recipe(*train: dict[str, Any]) -> dict[str, Any]:
        return stages_of(tmp_path, list(train))["reid"].recipe

    plain = recipe(PRW, CUHK)
    assert recipe(CUHK, PRW) == recipe(CUHK | {"repeat": 1}, PRW) == plain
    twice = recipe(PRW | {"repeat": 2}, CUHK)
    assert twice == plain | {"amounts": {"features1": {"repeat": 2.0}}}
    assert recipe(PRW | {"choose": 7})["amounts"] == {"features": {"choose": 7}}


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([PRW, PRW | {"split": "val"}], r"reid\.train: give one entry per dataset"),
        ([], r"reid\.train: give at least 1"),
        ([PRW | {"proportion": 1}, CUHK], r"reid\.train: the proportions .* sum to 1, which leaves nothing"),
        ([PRW | {"repeat": 1, "choose": 2}], r"reid\.train\.0: give one of proportion, repeat and choose"),
        ([PRW, {"dataset": "cuhk_sysu", "split": "train"}], r"reid\.train\.1\.dataset: 'cuhk_sysu' is not"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(tmp_path: Path, train: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(tmp_path, train)


def test_the_kind_stands_for_all_features_stages(tmp_path: Path) -> None:
    stages = build_stages(config_of(tmp_path, [PRW, CUHK]))
    chosen, again = select(stages, until="features", force=["features"])
    assert again == {"features:cuhk", "features:prw"} and chosen[-1].name == "features:prw"
    chosen, again = select(stages, until="reid", start_from="features:cuhk")
    assert again == {"features:cuhk", "reid", "gallery", "evaluation", "report"}


def test_a_study_reads_the_features_of_a_dataset(tmp_path: Path) -> None:
    def source(dataset: str | None, train: Any) -> str:
        config = config_of(tmp_path, train)
        names = [stage.name for stage in build_stages(config)]
        column = Column(title="rows", metric="rows", stage="features", dataset=dataset)
        return source_of(column, config, names).stage

    assert (source(None, PRW), source("prw", PRW)) == ("features", "features")
    assert (source(None, [PRW, CUHK]), source("prw", [PRW, CUHK])) == ("features:cuhk", "features:prw")
    with pytest.raises(ConfigError, match="not trained on 'mot' but on cuhk, prw"):
        source("mot", [PRW, CUHK])


def test_an_estimate_counts_the_identities_of_all_datasets(tmp_path: Path) -> None:
    def rows(train: Any) -> float | None:
        path = write(tmp_path, train)
        nodes = Nodes.of([Member("one", path)], Loader())
        node = nodes.of_member["one"]["reid"]
        drawn = {tmp_path / name: {"train.ids": ids} for name, ids in (("prw", 64), ("cuhk", 320))}
        return work(ToMake(node, drawn))

    def epochs(steps: int) -> float:
        return steps * 32 * 4 * 700.0

    assert rows(PRW) == epochs(2)
    assert rows([PRW, CUHK]) == epochs(12)
    assert rows([PRW | {"repeat": 5}, CUHK]) == epochs(20)
