"""Pinned models: what `use` means, and what is refused before anything starts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.config.loading import load_config
from flows.config.models import Config
from flows.errors import ConfigError, StageError
from flows.plan.pinned import PinnedModel
from flows.plan.states import make_plan, select
from flows.stages import pinned
from personsearch_core.recipes import DetectorModel, DetectorRecipe, FeaturesRecipe, ReidRecipe, RoiRecipe
from storage.local import LocalStore
from storage.manifest import Identity
from storage.store import Artifact
from storage.tags import set_tag

PROJECT = Path(__file__).resolve().parents[3]
MODEL = DetectorModel(backbone="resnet18", norm="batch", initial_weights=None)
ROI = RoiRecipe(variant="j2", roi_height=8, roi_width=4)


def commit(
    store: LocalStore, identity: Identity, digest: str, sources: dict[str, Artifact], **more: Any
) -> Artifact:
    with store.making(identity) as work:
        if work.made is not None:
            return work.made
        (work.path / "weights.bin").write_bytes(digest.encode())
        named = {name: f"{each.kind}/{each.key}" for name, each in sources.items()}
        return work.commit(digest, sources=named, **more)


def snapshot(store: LocalStore, dataset: str, images: int) -> Artifact:
    identity = Identity(kind="ingest", version=1, recipe={"dataset": dataset}, inputs={"root": str(images)})
    counts = {
        "images": images,
        "boxes": 3 * images,
        "train.images": images - 1,
        "train.boxes": 3 * images - 3,
    }
    return commit(store, identity, f"{dataset}{images}", {}, metrics={"counts": counts})


def trained(store: LocalStore, seed: int = 0, *, views: bool = True) -> tuple[Artifact, Artifact, Artifact]:
    """A detector, features and a branch, as their stages commit them."""
    taken = snapshot(store, "scenes", 10)
    recipe = {"detector": DetectorRecipe(model=MODEL, seed=seed).model_dump(mode="json"), "amounts": {}}
    identity = Identity(kind="detector", version=1, recipe=recipe, inputs={"train0": "view"})
    said = {"dataset": "scenes", "split": "train", "images": 9, "boxes": 27}
    made_by = {"views": {"train0": said}} if views else {}
    detector = commit(store, identity, f"detector {seed}", {"train0": taken}, made_by=made_by)
    recipe = FeaturesRecipe(roi=ROI.canonical()).model_dump(mode="json")
    inputs = {"people": "view", "detector": detector.content_digest}
    identity = Identity(kind="features", version=2, recipe=recipe, inputs=inputs)
    features = commit(store, identity, f"features {seed}", {"people": taken, "detector": detector})
    recipe = {"reid": ReidRecipe(seed=seed).model_dump(mode="json"), "variant": "j2"}
    identity = Identity(kind="reid", version=3, recipe=recipe, inputs={"features": features.content_digest})
    return detector, features, commit(store, identity, f"branch {seed}", {"features": features})


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def write(folder: Path, **sections: Any) -> Path:
    body = {
        "store": "store",
        "datasets": {"scenes": {"adapter": "prw", "root": "prw"}},
        "detector": {"train": [{"dataset": "scenes", "split": "train"}]},
        **sections,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


def pinned_config(folder: Path, use: str) -> Config:
    test = {"dataset": "scenes", "split": "test"}
    return load_config(write(folder, detector={"use": use}, reid={"use": use}, evaluation={"test": test}))


def name_of(artifact: Artifact) -> str:
    return f"{artifact.kind}/{artifact.key}"


def test_a_tag_on_the_branch_pins_the_detector_that_it_was_trained_on(
    store: LocalStore, tmp_path: Path
) -> None:
    detector, _, branch = trained(store)
    set_tag(store, "production", name_of(branch))
    config = pinned_config(tmp_path, "production")
    pins = config.pins
    assert {name: pin.artifact for name, pin in pins.items()} == {
        "detector": name_of(detector),
        "reid": name_of(branch),
    }
    assert config.detector.model == MODEL and config.roi.canonical() == ROI.canonical()
    assert pins["detector"].learnt() == ("scenes/train",)
    assert "reid.train" not in config.views() and config.used_datasets() == {"scenes"}


def test_the_stage_has_the_key_of_the_artifact_and_takes_no_view(store: LocalStore, tmp_path: Path) -> None:
    detector, _, branch = trained(store)
    for given in (name_of(detector), f"detector/{detector.key[:8]}"):
        config = load_config(write(tmp_path, detector={"use": given}))
        stage = pinned.stage("detector", config.pins["detector"])
        (planned,) = make_plan([stage], store)
        assert planned.artifact == detector and planned.state == "cached" and not stage.inputs
        assert planned.reason.startswith(f"pinned: {name_of(detector)}, built {detector.manifest.created}; ")
    reid = pinned.stage("reid", pinned_config(tmp_path, name_of(branch)).pins["reid"])
    (planned,) = make_plan([reid], store)
    assert planned.artifact == branch


def test_growth_is_told_by_split_or_of_an_older_artifact_by_dataset(
    store: LocalStore, tmp_path: Path
) -> None:
    for seed, views, said in (
        (1, True, "scenes/train had 9 images with 27 boxes; since then +3 images, +9 boxes"),
        (2, False, "scenes had 10 images with 30 boxes; since then +3 images, +9 boxes"),
    ):
        detector, _, _ = trained(store, seed, views=views)
        pin = load_config(write(tmp_path, detector={"use": name_of(detector)})).pins["detector"]
        now = snapshot(store, "scenes", 13)
        model = PinnedModel.of(pin, {"scenes": now}.get)
        assert str(model).endswith(said)
        assert model.as_record()["growth"][0]["images_now"] == 13 - views
        assert "known after the ingest" in str(PinnedModel.of(pin, lambda _: None))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            "produktion",
            "has no tag 'produktion' (its tags: features, production); did you mean 'production'? Set",
        ),
        (
            "detector/ffffffff",
            "has no artifact detector/ffffffff; `store ls` shows what it has, and `store pull",
        ),
        ("features", "is of kind 'features', not 'detector'"),
        ("./absent", "absent does not exist"),
        (7, "write a tag, an artifact detector/KEY, or the folder"),
    ],
)
def test_what_is_not_there_is_said_at_once(store: LocalStore, tmp_path: Path, use: Any, message: str) -> None:
    _, features, branch = trained(store)
    set_tag(store, "production", name_of(branch))
    set_tag(store, "features", name_of(features))
    with pytest.raises(ConfigError) as refused:
        load_config(write(tmp_path, detector={"use": use}))
    assert "config.yaml: detector.use: " in str(refused.value) and message in str(refused.value)


def test_use_stands_alone_and_takes_the_place_of_an_extended_section(
    store: LocalStore, tmp_path: Path
) -> None:
    detector, _, branch = trained(store)
    base = write(tmp_path, reid={"train": {"dataset": "scenes", "split": "train"}})
    for override in (
        f"detector.use={name_of(detector)}",
        "detector={use: x, training: {steps: 3}, compute: {}}",
    ):
        with pytest.raises(
            ConfigError, match="`use` takes a trained model unchanged, so it stands alone: remove"
        ):
            load_config(base, [override])
    assert load_config(base, [f"detector={{use: {name_of(detector)}}}"]).pins.keys() == {"detector"}
    set_tag(store, "production", name_of(branch))
    (tmp_path / "below").mkdir()
    own = tmp_path / "below" / "own.yaml"
    own.write_text(
        "extends: ../config.yaml\ndetector: {use: production}\nreid: {use: production}\nstore: ../store\n"
    )
    assert load_config(own).pins.keys() == {"detector", "reid"}, (
        "a tag is not a path of the file that names it"
    )


def test_a_branch_fits_its_detector_and_its_roi(store: LocalStore, tmp_path: Path) -> None:
    _, _, branch = trained(store)
    other, _, _ = trained(store, 1)
    with pytest.raises(
        ConfigError, match="reads the layers of the detector that it was trained with, so pin that"
    ):
        load_config(write(tmp_path, reid={"use": name_of(branch)}))
    with pytest.raises(ConfigError, match=f"was trained with another detector than {name_of(other)}"):
        load_config(write(tmp_path, detector={"use": name_of(other)}, reid={"use": name_of(branch)}))
    sections = {"detector": {"use": name_of(branch)}, "reid": {"use": name_of(branch)}}
    with pytest.raises(
        ConfigError, match=r"roi: the branch of .* was trained on other ROIs \(variant j2, roi_h"
    ):
        load_config(write(tmp_path, roi={"variant": "j3"}, **sections))
    assert load_config(
        write(tmp_path, roi={"variant": "j2", "roi_height": 8, "roi_width": 4}, **sections)
    ).reid


def test_damage_is_said_at_once_and_nothing_pinned_is_built_again(store: LocalStore, tmp_path: Path) -> None:
    detector, _, _ = trained(store)
    path = write(tmp_path, detector={"use": name_of(detector)})
    stages = [pinned.stage("detector", load_config(path).pins["detector"])]
    with pytest.raises(ConfigError, match=r"detector is pinned .* and is not built again"):
        select(stages, force=["detector"])
    weights = detector.path / "weights.bin"
    weights.write_bytes(b"other bytes")
    os.utime(weights)
    with pytest.raises(ConfigError, match=r"detector.use: detector/.* is damaged: weights.bin"):
        load_config(path)
    with pytest.raises(StageError, match="is damaged"):
        make_plan(stages, store)
    shutil.rmtree(detector.path)
    with pytest.raises(StageError, match="is gone"):
        make_plan(stages, store)


def test_a_jointly_trained_detector_brings_its_branch(store: LocalStore, tmp_path: Path) -> None:
    detector, _, _ = trained(store)
    joint = {
        **detector.manifest.identity.recipe,
        "joint": {"weight": 2.0, "roi": ROI.canonical().model_dump()},
    }
    identity = detector.manifest.identity.model_copy(update={"recipe": joint})
    made = commit(
        store, identity, "joint", {}, made_by={"trained_on": [{"dataset": "scenes", "split": "train"}]}
    )
    config = load_config(write(tmp_path, detector={"use": name_of(made)}))
    assert config.branch_stage == "detector" and config.roi.canonical() == ROI.canonical()
    assert config.detector.joint is not None and config.detector.joint.weight == 2.0
    with pytest.raises(
        ConfigError, match=r"the branch was trained jointly with it: name it as detector\.use"
    ):
        load_config(write(tmp_path, detector={"use": name_of(made)}, reid={"use": name_of(made)}))


def test_the_examples_and_the_deployments_show_both_rhythms(store: LocalStore, tmp_path: Path) -> None:
    examples = PROJECT / "docs" / "examples" / "nightly"
    roi = f"roi={json.dumps({'variant': 'j2', 'roi_height': 8, 'roi_width': 4})}"
    retrain = load_config(examples / "retrain.yaml", store=str(tmp_path / "empty"))
    assert retrain.promote is not None and retrain.promote.tag == "production" and not retrain.pins
    with pytest.raises(ConfigError, match="has no tag 'production'"):
        load_config(examples / "nightly.yaml", store=str(tmp_path / "empty"))
    _, _, branch = trained(store)
    set_tag(store, "production", name_of(branch))
    nightly = load_config(examples / "nightly.yaml", [roi], store=str(store.root))
    assert nightly.pins.keys() == {"detector", "reid"} and nightly.promote is None
    assert nightly.evaluation == retrain.evaluation, "or what they measure could not be compared"

    body = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    requests = {each["name"]: each["parameters"]["request"] for each in body["deployments"]}
    demo = PROJECT / "configs" / "demo.yaml"
    for name, pins, tag in (("nightly", nightly.pins, None), ("retrain", {}, "production")):
        config = load_config(demo, [*requests[name]["overrides"], roi], store=str(store.root))
        assert config.pins == pins and (config.promote and config.promote.tag) == tag
