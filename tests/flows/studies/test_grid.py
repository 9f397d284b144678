"""The grid of a sweep: values, ranges, combinations, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.config.loading import load_config
from flows.errors import ConfigError
from flows.studies.grid import grid, parse_axis
from flows.studies.objectives import PRESETS, objective_axis, shared_overrides

DEMO = Path(__file__).resolve().parents[3] / "configs" / "demo.yaml"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("reid.lr=1e-4,3e-4", ("1e-4", "3e-4")),
        ("reid.seed=0..4", ("0", "1", "2", "3", "4")),
        ("reid.seed=7,0..1", ("7", "0", "1")),
        ("detector.model.anchor_sizes=[1, 2],[3, 4]", ("[1, 2]", "[3, 4]")),
        (
            "reid.branch={pooling: max, norm: group},{pooling: gem}",
            ("{pooling: max, norm: group}", "{pooling: gem}"),
        ),
    ],
)
def test_values(text: str, values: tuple[str, ...]) -> None:
    assert parse_axis(text).values == values


@pytest.mark.parametrize(
    "text", ["reid.lr", "=1", "reid.lr=", "reid.lr=1,1", "reid.lr=1,,2", "reid.seed=4..0"]
)
def test_wrong_values_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_axis(text)


def test_all_combinations_last_axis_fastest() -> None:
    members = grid([parse_axis("roi.variant=j2,j3"), parse_axis("reid.seed=0..1")], always=["a.b=1"])
    assert [member.name for member in members] == [
        "roi.variant=j2 reid.seed=0",
        "roi.variant=j2 reid.seed=1",
        "roi.variant=j3 reid.seed=0",
        "roi.variant=j3 reid.seed=1",
    ]
    assert members[2].overrides == ("a.b=1", "roi.variant=j3", "reid.seed=0")


def test_one_axis_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"reid\.seed more than once"):
        grid([parse_axis("reid.seed=0"), parse_axis("reid.seed=1")])


def test_no_axes_is_the_config_itself() -> None:
    assert [member.name for member in grid([])] == ["the config as it is"]


def test_presets_are_valid_configs_of_equal_length() -> None:
    base = load_config(DEMO)
    members = grid(
        [objective_axis(base, {name: name for name in PRESETS}, "objective")], shared_overrides(base)
    )
    assert [member.settings["objective"] for member in members] == list(PRESETS)
    kinds = set()
    for member in members:
        reid = load_config(DEMO, member.overrides).reid
        assert sum(phase.epochs for phase in reid.phases) == sum(phase.epochs for phase in base.reid.phases)
        assert reid.unlabelled_per_batch > 0
        kinds |= {objective.kind for phase in reid.phases for objective in phase.objectives}
    assert json.loads(members[0].overrides[-1].partition("=")[2])
    assert len(kinds) == 9
