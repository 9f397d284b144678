"""What every stage takes and is told, by a config in which no two settings are the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_catalog.adapters.protocol import Layout
from data_catalog.ingest import Fingerprint
from flows.config.loading import load_config
from flows.plan.views import SnapshotView, ViewSpec
from flows.stages import ingest
from flows.stages.base import InputRef, Stage, load_maker
from flows.stages.building import build_stages
from storage.digests import digest_file
from storage.manifest import Identity, Manifest
from storage.store import Artifact
from tests.flows.report.invented import Silent

CONFIG = """
store: store
datasets:
  photos: {adapter: prw, root: photos, allow_empty: true}
  videos: {adapter: mot17, root: videos, splits: {by: time, parts: {a: 0.5, b: 0.5}}}
detector:
  train:
    - {dataset: photos, split: train, min_height: 11, repeat: 2}
    - {dataset: videos, split: a}
  validation: [{dataset: videos, split: b, min_height: 12}]
  model: {norm: batch, initial_weights: weights.safetensors}
reid:
  train: {dataset: photos, split: train, min_height: 13}
evaluation:
  - test: {dataset: photos, split: test, min_height: 14}
    protocol: cuhk_sysu
    gallery_sizes: ['50', '100']
  - {test: {dataset: videos, split: b}, protocol: drawn}
run:
  {device: cuda, devices: 2, threads: 3, dask: "tcp://there:1", workers: 5, memory_budget_gib: 2,
   checkpoint_seconds: 7}
"""

PHOTOS, VIDEOS = "ingest:photos", "ingest:videos"
DETECTOR, FEATURES, REID = InputRef("detector"), InputRef("features"), InputRef("reid")
INPUTS = {
    PHOTOS: {},
    VIDEOS: {},
    "detector": {
        "train0": InputRef(PHOTOS, ViewSpec("photos", "train", "boxes", 11)),
        "train1": InputRef(VIDEOS, ViewSpec("videos", "a", "boxes")),
        "validation0": InputRef(VIDEOS, ViewSpec("videos", "b", "boxes", 12)),
    },
    "features": {
        "people": InputRef(PHOTOS, ViewSpec("photos", "train", "people", 13)),
        "detector": DETECTOR,
    },
    "reid": {"features": FEATURES, "detector": DETECTOR},
    "detections:photos": {
        "test": InputRef(PHOTOS, ViewSpec("photos", "test", "test", 14)),
        "detector": DETECTOR,
    },
    "gallery:photos": {"detections": InputRef("detections:photos"), "reid": REID},
    "evaluation:photos": {
        "gallery": InputRef("gallery:photos"),
        "truth": InputRef(PHOTOS, ViewSpec("photos", "test", "truth", 14, ("TestG100", "TestG50"))),
    },
    "detections:videos": {
        "test": InputRef(VIDEOS, ViewSpec("videos", "b", "test")),
        "detector": DETECTOR,
    },
    "gallery:videos": {"detections": InputRef("detections:videos"), "reid": REID},
    "evaluation:videos": {
        "gallery": InputRef("gallery:videos"),
        "truth": InputRef(VIDEOS, ViewSpec("videos", "b", "truth", protocols=("drawn",))),
    },
    "report": {
        "detector": DETECTOR,
        "reid": REID,
        "features": FEATURES,
        "test:photos": InputRef(PHOTOS, ViewSpec("photos", "test", "test", 14)),
        "gallery:photos": InputRef("gallery:photos"),
        "evaluation:photos": InputRef("evaluation:photos"),
        "test:videos": InputRef(VIDEOS, ViewSpec("videos", "b", "test")),
        "gallery:videos": InputRef("gallery:videos"),
        "evaluation:videos": InputRef("evaluation:videos"),
    },
}
DEVICE = {"device": "cuda", "threads": 3}
SPREAD = {"dask": "tcp://there:1", "workers": 5}


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Stage]:
    for name in ("photos", "videos"):
        (tmp_path / name).mkdir()
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.setattr(ingest, "_fingerprint", lambda *_, **__: Fingerprint("files", Layout(()), {}, {}))
    return {stage.name: stage for stage in build_stages(load_config(tmp_path / "config.yaml"))}


def test_every_stage_takes_what_its_key_depends_on(stages: dict[str, Stage], tmp_path: Path) -> None:
    assert {name: _by_key(stage) for name, stage in stages.items()} == INPUTS
    fixed = {name: dict(stage.fixed_inputs) for name, stage in stages.items() if stage.fixed_inputs}
    weights = digest_file(tmp_path / "weights.safetensors")
    assert fixed == {
        PHOTOS: {"root": "files"},
        VIDEOS: {"root": "files"},
        "detector": {"initial_weights": weights},
    }


def _by_key(stage: Stage) -> dict[str, InputRef]:
    """A stage's inputs as far as its key depends on them: without the roots of datasets."""
    return {name: replace(ref, root=None) for name, ref in stage.inputs.items()}


def test_every_stage_takes_images_from_the_roots_of_its_views(
    stages: dict[str, Stage], tmp_path: Path
) -> None:
    refs = [ref for stage in stages.values() for ref in stage.inputs.values()]
    assert all(ref.root == (tmp_path / ref.view.dataset if ref.view else None) for ref in refs)


def test_every_maker_takes_what_its_stage_gives(stages: dict[str, Stage], tmp_path: Path) -> None:
    for stage in stages.values():
        inputs = {name: _found(ref, tmp_path) for name, ref in stage.inputs.items()}

        def context(named: dict[str, Artifact | SnapshotView], stage: Stage = stage) -> Any:
            maker = load_maker(stage.maker)
            options = json.loads(json.dumps(stage.options))
            return maker.context(stage.recipe, named, options, work=tmp_path, reporter=Silent())

        taken = context(inputs)
        assert taken.inputs.named() == inputs
        with pytest.raises(ValidationError, match="other"):
            context({**inputs, "other": _found(DETECTOR, tmp_path)})
        for name in {"train0", "people", "features", "test", "gallery", "truth"} & inputs.keys():
            other = DETECTOR if stage.inputs[name].view else INPUTS["features"]["people"]
            wrong = _found(other, tmp_path)
            with pytest.raises(ValidationError):
                context({**inputs, name: wrong})


def _found(ref: InputRef, folder: Path) -> Artifact | SnapshotView:
    identity = Identity(kind=ref.stage.partition(":")[0], version=1, recipe={}, inputs={})
    made = Artifact(folder, Manifest.model_construct(kind=identity.kind, key=identity.key))
    return made if ref.view is None else SnapshotView(made, ref.view, ref.root or folder)


def test_the_recipe_names_no_file_of_weights(stages: dict[str, Stage]) -> None:
    recipe = stages["detector"].recipe
    assert recipe["detector"]["model"]["initial_weights"] == "file"
    assert recipe["amounts"] == {"train0": {"repeat": 2.0}, "train1": {"repeat": 1.0}}


def test_every_stage_is_told_where_and_how_to_work(stages: dict[str, Stage], tmp_path: Path) -> None:
    photos, videos = (str(tmp_path / name) for name in ("photos", "videos"))
    store = str(tmp_path / "store")
    reading = {"store": store, "dask": "tcp://there:1", "read": True, "fingerprint": "files"}
    assert {name: dict(stage.options) for name, stage in stages.items()} == {
        PHOTOS: {"root": photos, "allow_empty": True, **reading},
        VIDEOS: {"root": videos, "allow_empty": False, **reading},
        "detector": {
            "initial_weights": str(tmp_path / "weights.safetensors"),
            "checkpoint_seconds": 7.0,
        },
        "features": SPREAD,
        "reid": {"checkpoint_seconds": 7.0, "memory_budget": 2**31},
        **{f"{kind}:{name}": {} for kind in ("detections", "gallery") for name in ("photos", "videos")},
        **{f"evaluation:{name}": SPREAD for name in ("photos", "videos")},
        "report": {
            "detector_trained_on": ["photos/train", "videos/a"],
            "reid_trained_on": ["photos/train"],
            "config": "config.yaml",
        },
    }
    on = {name: stage.processors.model_dump() for name, stage in stages.items() if stage.processors}
    computing = {name for name in stages if name.startswith(("detect", "features", "reid", "gallery"))}
    assert on.keys() == computing
    assert {name: where["devices"] for name, where in on.items() if where["devices"] != 1} == {
        "detector": 2,
        "features": 2,
        "reid": 2,
    }
    assert all({"device": each["device"], "threads": each["threads"]} == DEVICE for each in on.values())


def test_a_rule_of_splits_keys_its_dataset(stages: dict[str, Stage]) -> None:
    assert "splits" not in stages[PHOTOS].recipe
    assert stages[VIDEOS].recipe["splits"]["by"] == "time"


def _versions(tmp_path: Path, *changes: str) -> dict[str, int]:
    stages = build_stages(load_config(tmp_path / "config.yaml", changes))
    return {stage.name: stage.version for stage in stages}


def test_only_stages_that_give_another_result_have_another_version(
    stages: dict[str, Stage], tmp_path: Path
) -> None:
    """A backbone of COCO's epsilon 0 gives it to the branch; the best weights are chosen by another AP."""
    before = {name: stage.version for name, stage in stages.items()}
    frozen = "detector.model.norm=frozen_batch"
    assert _versions(tmp_path, frozen) == before
    coco = (frozen, "detector.model.norm_epsilon=0")
    assert _versions(tmp_path, *coco) == {**before, "reid": before["reid"] + 1}
    assert _versions(tmp_path, *coco, "reid.branch.norm=frozen_batch") == before
    assert _versions(tmp_path, *coco, "reid.branch.norm_epsilon=1e-5") == before
    assert _versions(tmp_path, "detector.training.keep=best") == {
        **before,
        "detector": before["detector"] + 1,
    }


def test_the_backbones_epsilon_spelled_out_is_the_same_key(stages: dict[str, Stage], tmp_path: Path) -> None:
    spelled = build_stages(load_config(tmp_path / "config.yaml", ["reid.branch.norm_epsilon=1e-5"]))
    assert next(stage.recipe for stage in spelled if stage.name == "reid") == stages["reid"].recipe
