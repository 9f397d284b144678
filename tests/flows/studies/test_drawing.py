"""Stand-ins of a study: drawn once, in native layouts, read by the adapters of those."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from data_catalog.layouts import fitting_adapter
from flows.config.loading import load_config
from flows.errors import ConfigError
from flows.studies.drawing import Drawing, draw_once
from flows.studies.reading import read_study
from tests.flows.studies.files import STUDY, study_of, write_study

DRAW = """
draw:
  folder: drawn
  datasets:
    scenes: {layout: prw, scenes: {train_images: 2, test_images: 2, width: 64, height: 64}}
    tracks: {layout: mot17, seed: 3, scenes: {sequences: 1, frames: 1, width: 64, height: 64, detectors: []}}
"""


def drawing(path: Path) -> Drawing:
    found = read_study(path).draw
    assert found is not None
    return found


def test_a_dataset_that_could_not_be_drawn_leaves_nothing(tmp_path: Path) -> None:
    def fail(root: Path) -> None:
        (root / "half.jpg").touch()
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        draw_once(tmp_path / "prw", fail)
    assert not list(tmp_path.iterdir())


def test_members_read_what_is_drawn(tmp_path: Path) -> None:
    path = write_study(tmp_path, STUDY + DRAW)
    member = study_of(path).members["j3 on scenes"]
    config = load_config(member.config, member.overrides)
    drawn = drawing(path)
    assert config.datasets["tracks"].root == drawn.root("tracks")
    said: list[str] = []
    drawn.draw(said.append)
    assert said == [
        "drawing scenes, a stand-in in the layout of prw",
        "drawing tracks, a stand-in in the layout of mot17",
    ]
    assert (drawn.root("scenes") / "query_info.txt").is_file()
    assert fitting_adapter(drawn.root("tracks"), {}) == "mot17"
    said.clear()
    drawn.draw(said.append)
    assert not said


def test_another_specification_is_another_folder(tmp_path: Path) -> None:
    first = drawing(write_study(tmp_path, STUDY + DRAW))
    second = drawing(write_study(tmp_path, STUDY + DRAW.replace("seed: 3", "seed: 4")))
    assert first.root("scenes") == second.root("scenes") and first.root("tracks") != second.root("tracks")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("frames: 1", "frams: 1", r"line 29: draw\.datasets\.tracks: there is no frams; known are"),
        ("frames: 1", "frames: many", r"frames: "),
        ("frames: 1", "frames: 0", r"cannot be drawn"),
        ("layout: mot17", "layout: kitti", r"layout: choose 'prw'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_study(write_study(tmp_path, STUDY + DRAW.replace(old, new)))


def test_a_dataset_that_a_view_names_may_be_drawn_without_being_in_the_config(tmp_path: Path) -> None:
    path = write_study(tmp_path, STUDY + DRAW)
    config = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    for name in ("scenes", "tracks"):
        config["datasets"].pop(name, None)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    member = study_of(path).members["j3 on scenes"]
    assert load_config(member.config, member.overrides).datasets.keys() >= {"scenes", "tracks"}


@pytest.mark.parametrize(
    "grid",
    [
        "datasets.more.options: {plain: {}}",
        "datasets: {one: {more: {}}}",
        "reid.train: {other: [{dataset: more}]}",
    ],
)
def test_a_dataset_of_a_grid_may_be_drawn(tmp_path: Path, grid: str) -> None:
    group = f"  others: {{grid: {{{grid}}}}}\ntables:"
    text = STUDY.replace("tables:", group, 1) + DRAW.replace("tracks: {layout", "more: {layout")
    assert study_of(write_study(tmp_path, text)).members


def test_a_dataset_that_no_member_has_is_refused(tmp_path: Path) -> None:
    path = write_study(tmp_path, STUDY + DRAW.replace("scenes: {layout", "scens: {layout"))
    with pytest.raises(ConfigError, match=r"line 28: draw: no member has a dataset 'scens'.*'scenes'"):
        study_of(path)
