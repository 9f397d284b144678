"""An exported model is imported as it is: by its weights, safetensors alone, with its origin."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from flows.config.loading import load_config
from flows.config.models import Config
from flows.errors import ConfigError, StageError
from flows.plan.states import Planned, make_plan
from flows.stages import gallery, pinned
from flows.stages.base import load_maker
from flows.stages.detector import TRAINED_BRANCH
from personsearch_core import BranchModel, DetectorModel, RoiRecipe, build_branch, build_detector, load_branch
from personsearch_core.export import save_model
from storage.digests import digest_safetensors
from storage.local import LocalStore
from storage.store import Artifact
from storage.tags import set_tag

MODEL = DetectorModel(
    backbone="resnet18", initial_weights=None, norm="group", fpn_channels=8, head_convolutions=1
)
LEARNT = {"dataset": "scenes", "split": "train", "images": 9, "boxes": 27, "snapshot": None}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, and where it says that it came from."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    torch.manual_seed(1)
    branch = build_branch("j4", MODEL, BranchModel(initial_weights="random", norm="group", embedding_dim=8))
    parts = {"created": "2026-11-01T00:00:00+00:00", "key": "a" * 32, "recipe": {}, "trained_on": [LEARNT]}
    save_model(
        folder, build_detector(MODEL), branch, RoiRecipe(variant="j4"), {"detector": parts, "reid": parts}
    )
    return folder


def config_of(folder: Path, model: Path | str) -> Config:
    body = {
        "store": "store",
        "datasets": {"scenes": {"adapter": "prw", "root": "prw"}},
        "detector": {"use": str(model)},
        "reid": {"use": str(model)},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(body))
    return load_config(path)


class Quiet:
    """A reporter that nothing listens to."""

    def progress(self, done: int, total: int, **metrics: float) -> None:
        pass

    def should_stop(self) -> bool:
        return False


def plan_of(config: Config, store: LocalStore) -> list[Planned]:
    return make_plan([pinned.stage(name, pin) for name, pin in config.pins.items()], store)


def built(planned: Planned, store: LocalStore, artifacts: dict[str, Artifact]) -> Artifact:
    """The stage's artifact, made in this process."""
    stage, identity = planned.stage, planned.identity
    assert identity is not None
    inputs = {name: artifacts[ref.stage] for name, ref in stage.inputs.items()}
    maker = load_maker(stage.maker)
    with store.making(identity) as work:
        context = maker.context(identity.recipe, inputs, stage.options, work=work.path, reporter=Quiet())
        made = maker.make(context)
        sources = {name: f"{each.kind}/{each.key}" for name, each in inputs.items()}
        return work.commit(made.content_digest, sources=sources, made_by=made.made_by)


def test_both_parts_are_imported_once_and_then_have_a_tag_as_any_model(
    exported: Path, tmp_path: Path
) -> None:
    config, store = config_of(tmp_path, exported), LocalStore(tmp_path / "store")
    detector, branch = plan_of(config, store)
    assert detector.state == branch.state == "runs"
    assert detector.reason == (
        f"pinned: the model in {exported}, built 2026-11-01T00:00:00+00:00; "
        "scenes/train had 9 images with 27 boxes; today's counts are known after the ingest; will be imported"
    )
    artifacts = {"detector": built(detector, store, {})}
    assert artifacts["detector"].content_digest == digest_safetensors(exported / "detector.safetensors")
    artifacts["reid"] = built(plan_of(config, store)[1], store, artifacts)
    assert [planned.artifact for planned in plan_of(config, store)] == list(artifacts.values())
    assert load_branch(artifacts["reid"].path / TRAINED_BRANCH).variant == "j4"

    set_tag(store, "production", f"reid/{artifacts['reid'].key}")
    by_tag = config_of(tmp_path, "production")
    assert {name: pin.artifact for name, pin in by_tag.pins.items()} == {
        name: pin.artifact for name, pin in config.pins.items()
    }
    assert by_tag.roi.canonical() == config.roi.canonical() == RoiRecipe(variant="j4").canonical()
    assert by_tag.pins["reid"].learnt() == ("scenes/train",)


def test_the_key_follows_the_weights_and_not_the_place(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "copy")
    here, there = (config_of(tmp_path, folder).pins for folder in (exported, tmp_path / "copy"))
    assert [pin.artifact for pin in here.values()] == [pin.artifact for pin in there.values()]
    assert config_of(tmp_path, "./copy").pins["reid"].folder == tmp_path / "copy"


def test_the_gallery_of_an_exported_branch_knows_whether_that_normalises(
    exported: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    free = BranchModel(initial_weights="random", norm="group", embedding_dim=8, normalise=False)
    save_model(
        tmp_path / "free", build_detector(MODEL), build_branch("j4", MODEL, free), RoiRecipe(variant="j4")
    )
    for folder, known in ((exported, {}), (tmp_path / "free", {"normalise": "false"})):
        assert dict(gallery.stage(config_of(tmp_path, folder), "").fixed_inputs) == known


def test_a_folder_that_is_no_whole_model_is_refused_before_anything_starts(
    exported: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(exported, model)
    config, store = config_of(tmp_path, model), LocalStore(tmp_path / "store")
    planned = plan_of(config, store)[0]
    weights = model / "detector.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:2000]):
        weights.write_bytes(damaged)
        with pytest.raises(
            (StageError, ConfigError), match=r"has changed since the run was planned|is damaged"
        ):
            built(planned, store, {})
    with pytest.raises(ConfigError, match=rf"detector.use: the model in {model} is damaged: "):
        config_of(tmp_path, model)
    described = json.loads((model / "model.json").read_text())
    weights.write_bytes(whole)
    (model / "model.json").write_text(json.dumps({**described, "roi": {"variant": "j2"}}))
    with pytest.raises(ConfigError, match=r"model.json does not match its digest in SHA256SUMS"):
        config_of(tmp_path, model)
    (model / "model.json").write_text(json.dumps({**described, "provenance": ["no mapping"]}))
    with pytest.raises(ConfigError, match="is damaged: 'list' object has no attribute"):
        config_of(tmp_path, model)
    (model / "model.json").write_text(json.dumps({**described, "format": 2}))
    with pytest.raises(ConfigError, match=r"model.json has format 2; this version reads format 1"):
        config_of(tmp_path, model)
    (model / "model.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match=r"is damaged: .* nested too deeply"):
        config_of(tmp_path, model)
    shutil.copy(exported / "model.json", model)
    weights.unlink()
    with pytest.raises(ConfigError, match=rf"{model} is not a model: it has no detector.safetensors"):
        config_of(tmp_path, model)
    torch.save({"weight": torch.zeros(1)}, weights)
    with pytest.raises(ConfigError, match="is damaged"):
        config_of(tmp_path, model)
