"""The stage that times architectures: keyed by network, cases and machine; it needs no dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.config.loading import load_config
from flows.stages import speed
from flows.stages.base import load_maker
from flows.stages.building import build_stages
from flows.studies.loading import Loader
from flows.studies.members import Member
from tests.end_to_end.tiny import draw_tiny_data, tiny_settings


class Silent:
    def progress(self, done: int, total: int, **metrics: float) -> None:
        """Discard progress."""

    def should_stop(self) -> bool:
        return False


@pytest.fixture
def config(tmp_path: Path) -> Path:
    settings = tiny_settings("absent", "store") | {
        "speed": {"images": [1], "people": [2], "rounds": 1, "variants": ["j3", "j4"]}
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_member_until_speed_needs_no_dataset(config: Path) -> None:
    (stage,) = Loader().load(Member("speed", config, until="speed")).stages
    assert (stage.kind, stage.alone, dict(stage.inputs)) == ("speed", True, {})


def test_times_and_ratios_are_metrics(config: Path, tmp_path: Path) -> None:
    loaded = load_config(config)
    stage = speed.stage(loaded)
    context = load_maker(stage.maker).context(stage.recipe, {}, {}, work=tmp_path, reporter=Silent())
    metrics = load_maker(stage.maker).make(context).metrics
    assert sorted(metrics) == sorted(
        f"{variant}/1x2/{name}" for variant in ("disj", "j3", "j4") for name in ("ms_per_person", "ratio")
    )
    assert loaded.speed is not None and set(metrics) == set(speed.metric_names(loaded.speed))
    assert metrics["disj/1x2/ratio"] == 1.0
    times = {name: metrics[f"{name}/1x2/ms_per_person"] for name in ("disj", "j3")}
    assert metrics["j3/1x2/ratio"] == pytest.approx(times["disj"] / times["j3"])


def test_another_machine_or_network_measures_again(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = speed.stage(load_config(config)).recipe
    weights = ["detector.model.norm=frozen_batch", "detector.model.initial_weights=coco"]
    assert speed.stage(load_config(config, weights)).recipe["model"]["initial_weights"] == "imagenet"
    wider = speed.stage(load_config(config, ["detector.model.image_width=128"])).recipe
    assert wider != own and wider["machine"] == own["machine"]
    assert speed.stage(load_config(config, ["roi={variant: j4, roi_scale: 0.5}"])).recipe["roi_scale"] == 0.5
    monkeypatch.setattr(speed, "cpu_name", lambda: "another")
    assert speed.stage(load_config(config)).recipe["machine"]["device"] == "another"


def test_the_gpu_is_asked_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("NVIDIA H200", "NVIDIA T4")):
        folder = tmp_path / f"0000:{number}"
        folder.mkdir()
        (folder / "information").write_text(f"Model: \t\t {name}\nIRQ: 3\n")
    monkeypatch.setattr(speed, "_GPUS", tmp_path)
    assert (speed._gpu("auto"), speed._gpu("cuda:1"), speed._gpu("cuda:2")) == (
        "NVIDIA H200",
        "NVIDIA T4",
        None,
    )


def test_a_run_of_a_config_with_the_section_has_the_stage(config: Path, tmp_path: Path) -> None:
    draw_tiny_data(tmp_path / "absent")
    assert build_stages(load_config(config))[-1].name == "speed"
