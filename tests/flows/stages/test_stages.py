"""What every stage takes and is told, by a config in which no two settings are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_catalog.adapters.protocol import Layout
from data_catalog.ingest import Fingerprint
from flows.config.models import load_config
from flows.plan.views import ViewSpec
from flows.stages import ingest
from flows.stages.base import InputRef, Stage
from flows.stages.building import build_stages
from storage.digests import digest_file

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
    assert {name: dict(stage.inputs) for name, stage in stages.items()} == INPUTS
    fixed = {name: dict(stage.fixed_inputs) for name, stage in stages.items() if stage.fixed_inputs}
    weights = digest_file(tmp_path / "weights.safetensors")
    assert fixed == {
        PHOTOS: {"root": "files"},
        VIDEOS: {"root": "files"},
        "detector": {"initial_weights": weights},
    }


def test_the_recipe_names_no_file_of_weights(stages: dict[str, Stage]) -> None:
    recipe = stages["detector"].recipe
    assert recipe["detector"]["model"]["initial_weights"] == "file"
    assert recipe["amounts"] == {"train0": {"repeat": 2.0}, "train1": {"repeat": 1.0}}


def test_every_stage_is_told_where_and_how_to_work(stages: dict[str, Stage], tmp_path: Path) -> None:
    photos, videos = (str(tmp_path / name) for name in ("photos", "videos"))
    store = str(tmp_path / "store")
    reading = {"store": store, "dask": "tcp://there:1", "read": True, "fingerprint": "files"}
    test = {"photos": {"root": photos}, "videos": {"root": videos}}
    assert {name: dict(stage.options) for name, stage in stages.items()} == {
        PHOTOS: {"root": photos, "allow_empty": True, **reading},
        VIDEOS: {"root": videos, "allow_empty": False, **reading},
        "detector": {
            "roots": {"train0": photos, "train1": videos, "validation0": videos},
            "initial_weights": str(tmp_path / "weights.safetensors"),
            "checkpoint_seconds": 7.0,
        },
        "features": {"root": photos, **SPREAD},
        "reid": {"checkpoint_seconds": 7.0, "memory_budget": 2**31},
        **{f"detections:{name}": options for name, options in test.items()},
        **{f"gallery:{name}": {} for name in test},
        **{f"evaluation:{name}": SPREAD for name in test},
        "report": {"roots": {"test:photos": photos, "test:videos": videos}},
    }
    on = {name: stage.processors.model_dump() for name, stage in stages.items() if stage.processors}
    computing = {name for name in stages if name.startswith(("detect", "features", "reid", "gallery"))}
    assert on.keys() == computing
    assert {name: where["devices"] for name, where in on.items() if where["devices"] != 1} == {
        "detector": 2,
        "features": 2,
    }
    assert all({"device": each["device"], "threads": each["threads"]} == DEVICE for each in on.values())


def test_a_rule_of_splits_keys_its_dataset(stages: dict[str, Stage]) -> None:
    assert "splits" not in stages[PHOTOS].recipe
    assert stages[VIDEOS].recipe["splits"]["by"] == "time"
