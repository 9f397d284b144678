from __future__ import annotations

from pathlib import Path

import torch
import yaml

from personsearch_core.recipes import DetectorModel
from personsearch_core.speed import PAPER_MS_PER_PERSON, SpeedRow, measure_speed, median_times


def test_every_architecture_is_timed_against_disj() -> None:
    model = DetectorModel(
        backbone="resnet18", fpn_channels=16, image_width=64, image_height=64, initial_weights="imagenet"
    )
    rows = measure_speed(["j4"], [1, 2], [3], model=model, device=torch.device("cpu"), rounds=1, warm_up=0)
    assert [(row.variant, row.images, row.people) for row in rows] == [
        ("disj", 1, 3), ("j4", 1, 3), ("disj", 2, 3), ("j4", 2, 3)
    ]  # fmt: skip
    for row in rows:
        assert row.seconds > 0 and row.ms_per_person == 1000 * row.seconds / (row.images * 3)
        if row.variant == "disj":
            assert row.ratio == row.bound == 1
        assert row.paper_ratio is None, "the paper has no images with three people"


def test_the_papers_figures_are_those_of_the_same_case(shared: Path) -> None:
    table = yaml.safe_load((shared / "paper_tables.yaml").read_text())["b"]
    assert set(PAPER_MS_PER_PERSON) == {name.lower() for name in table}
    for name, by_people in table.items():
        for people, by_images in by_people.items():
            for images, milliseconds in by_images.items():
                row = SpeedRow(name.lower(), images, people, 1.0, 1.0, 1.0, 1.0, 1.0)
                assert row.paper_ms_per_person == milliseconds
                assert row.paper_ratio == table["Disj"][people][images] / milliseconds


def test_parts_take_turns() -> None:
    order: list[str] = []
    parts = {name: (lambda name=name: order.append(name)) for name in "ab"}
    times = median_times(parts, torch.device("cpu"), rounds=2, warm_up=1)  # type: ignore[arg-type]
    assert order == ["a", "b"] * 3 and set(times) == {"a", "b"}
