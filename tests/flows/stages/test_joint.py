"""Detector and branch in one step: which stages there are, what they take, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from data_catalog.adapters.protocol import Layout
from data_catalog.ingest import Fingerprint
from flows.config.loading import load_config
from flows.errors import ConfigError
from flows.stages import ingest
from flows.stages.base import InputRef, Stage
from flows.stages.building import build_stages

JOINT: dict[str, Any] = {"datasets": ["photos"], "weight": 0.5}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ingest, "_fingerprint", lambda *_, **__: Fingerprint("files", Layout(()), {}, {}))
    for name in ("photos", "videos"):
        (tmp_path / name).mkdir()
    settings = {
        "store": "store",
        "datasets": {
            "photos": {"adapter": "prw", "root": "photos"},
            "videos": {"adapter": "mot17", "root": "videos"},
        },
        "detector": {
            "train": [{"dataset": "videos", "split": "train"}, {"dataset": "photos", "split": "train"}],
            "model": {"norm": "batch", "initial_weights": None},
            "joint": JOINT,
        },
        "roi": {"variant": "j2"},
        "evaluation": {"test": {"dataset": "photos", "split": "test"}, "protocol": "prw"},
        "run": {"devices": 2},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def stages(config: Path, *changes: str) -> dict[str, Stage]:
    return {stage.name: stage for stage in build_stages(load_config(config, changes))}


def test_the_detector_takes_the_place_of_reid(config: Path) -> None:
    found = stages(config)
    assert list(found)[2:] == ["detector", "detections", "gallery", "evaluation", "report"]
    assert found["gallery"].inputs["reid"] == InputRef("detector")
    assert not {"reid", "features"} & found["report"].inputs.keys()
    assert found["report"].options["reid_trained_on"] == ["photos/train"]
    uses = {name: ref.view.use for name, ref in found["detector"].inputs.items() if ref.view}
    assert uses == {"train0": "boxes", "train1": "people"}
    assert found["detector"].processors is not None and found["detector"].processors.devices == 1
    free = stages(config, "detector.joint.branch.normalise=false")
    assert (dict(found["gallery"].fixed_inputs), dict(free["gallery"].fixed_inputs)) == (
        {},
        {"normalise": "false"},
    )


def test_its_recipe_says_what_is_trained_and_without_it_nothing_is_said(config: Path) -> None:
    recipe = stages(config)["detector"].recipe
    assert recipe["identities"] == ["train1"]
    assert (recipe["joint"]["weight"], recipe["joint"]["roi"]["roi_height"]) == (0.5, 64)
    assert "datasets" not in recipe["joint"] and "objective_versions" not in recipe
    alone = stages(config, "detector.joint=null", "evaluation=[]")["detector"].recipe
    assert {key: value for key, value in recipe.items() if key not in ("joint", "identities")} == alone


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("reid={train: {dataset: photos, split: train}}", "leave out reid, or set it to null"),
        ("detector.joint.datasets=[phots]", "'phots' is not in detector.train, which has photos, videos"),
        ("detector.joint.datasets=[]", "at least 1"),
        ("detector.training.keep=best", "with joint, use last"),
        ("roi.variant=disj", "needs a shared map, which disj has not"),
        ("roi.margin=0.1", "set roi.margin to 0"),
        ("detector.joint.branch.norm=group", r"detector\.joint\.branch: norm 'group' cannot start"),
        ("detector.joint.objectives=[{kind: oimm}]", "did you mean 'oim'"),
        ("detector.joint=null", "nothing to evaluate without a reid section"),
    ],
)
def test_what_cannot_be_trained_jointly_is_refused(config: Path, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(config, [change])
