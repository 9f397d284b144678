from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import to_jsonable_python
from typer.testing import CliRunner

from flows.cli.main import app
from flows.config.fields import LISTING, config_fields
from flows.config.model_fields import listing
from flows.config.models import Config
from flows.errors import ConfigError
from flows.studies.reading import is_study

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def one(path: str) -> str:
    (field,) = config_fields(path)
    return f"{field.takes} = {field.default}"


def leaves(value: Any, path: str = "") -> Iterator[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        inner = f"{path}.{name}" if path else str(name)
        sections = isinstance(item, dict) or (isinstance(item, list) and item and isinstance(item[0], dict))
        yield from leaves(item, inner) if sections else [inner]


def test_the_listing_holds_what_the_models_say() -> None:
    assert LISTING.read_text() == listing(), "a model has changed: run `make fields`"


@pytest.mark.parametrize(
    "config",
    sorted(path for path in CONFIGS.rglob("*.yaml") if not is_study(path)),
    ids=lambda path: path.stem,
)
def test_every_field_of_the_configs_is_known(config: Path) -> None:
    given = yaml.safe_load(config.read_text())
    given.pop("extends", None)
    for path in leaves(given):
        if ".options." not in path:  # what an adapter understands
            assert len(config_fields(path)) == 1, path


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("roi.variant", 'j2 | j3 | j4 | disj = "j3"'),
        ("reid.lr", "number > 0 = 0.0001"),
        ("reid.branch.last_stride", "1 | 2 = 2"),
        ("reid.phases[].objectives[].margin", "number > 0 | soft | null = null"),
        ("reid.phases.1.epochs", "integer > 0 = (to be given)"),
        ("detector.augmentation.hue", "number >= 0, <= 0.5 = 0.0"),
        ("detector.augmentation.scale_jitter", "[number > 0, number > 0] = [1.0, 1.0]"),
        ("detector.model.anchor_ratios", "list of number > 0 = [0.5, 1.0, 2.0]"),
        ("datasets.anything.root", "path = (to be given)"),
        ("datasets.NAME.options", "string | integer | number | boolean, by name = {}"),
    ],
)
def test_a_field_says_what_it_takes(path: str, shown: str) -> None:
    assert one(path) == shown


def test_what_is_left_out_has_the_default_that_is_shown() -> None:
    """Whether its section is given or not: else a field's default would hang on its neighbours."""
    view = {"dataset": "d", "split": "train"}
    least = {
        "store": "store",
        "datasets": {"d": {"adapter": "coco", "root": "root"}},
        "detector": {"train": [view]},
        "reid": {"train": view},
        "speed": {},
    }
    given = Config.model_validate(least)
    shown = {field.path: field.default for field in config_fields() if field.takes != "list of sections"}
    compared = 0
    for path, default in shown.items():
        if default not in ("", "(to be given)") and not re.search(
            r"\[]|NAME|^(reid|speed)$|^detector\.joint|^promote", path
        ):
            value = to_jsonable_python(functools.reduce(getattr, path.split("."), given))
            assert json.loads(default) == value, path
            compared += 1
    assert compared > 80


def test_a_section_is_shown_with_what_it_holds() -> None:
    section, *fields = config_fields("evaluation.re_ranking")
    assert (section.takes, section.default) == ("section", "null")
    assert "Zhong" in section.description
    assert [field.path.rpartition(".")[2] for field in fields] == ["k1", "k2", "weight", "depth"]


def test_a_dataset_need_not_be_named() -> None:
    paths = [field.path for field in config_fields("datasets.splits")]
    assert paths[0] == "datasets.NAME.splits" and all(path.startswith(paths[0]) for path in paths)
    assert config_fields("datasets.cams.splits") == config_fields("datasets.splits")


def test_a_list_of_sections_shows_its_default_without_what_has_no_value() -> None:
    phases = config_fields("reid.phases")[0]
    assert phases.takes == "list of sections"
    assert '{"kind": "semi_hard_triplet", "weight": 1.0}' in phases.default and "null" not in phases.default


def test_the_command_shows_descriptions() -> None:
    shown = CliRunner().invoke(app, ["fields", "run.checkpoint_seconds"]).output
    assert (
        shown == "run.checkpoint_seconds: number > 0 = 60.0\n    Seconds between checkpoints of a training.\n"
    )


@pytest.mark.parametrize("path", ["nonsense", "reid.l", "reid.lr.x"])
def test_an_unknown_field_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"no field .*; its sections and fields are store, datasets"):
        config_fields(path)


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("lr", r"detector\.training\.lr or reid\.lr"),
        ("reid.learning_rate", r"detector\.training\.lr or reid\.lr"),
        ("detector.bakbone", r"detector\.model\.backbone"),
    ],
)
def test_a_field_of_another_place_is_suggested(path: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"no field '{path}' \(did you mean {near}\?\)"):
        config_fields(path)


def test_every_field_that_the_papers_page_names_exists() -> None:
    """`.name` stands for a field beside the one before it."""
    known = {field.path.replace("[]", "") for field in config_fields()}
    table = (CONFIGS.parent / "docs" / "paper.md").read_text()
    named, last = set(), ""
    for name in re.findall(r"`(\.?[a-z_]+(?:\[\])?(?:\.[a-z_\[\]]+)*)`", table):
        last = f"{last.rpartition('.')[0]}{name}" if name.startswith(".") else name.replace("[]", "")
        if "." in last and last.partition(".")[0] in Config.model_fields:
            named.add(last)
    assert len(named) > 60 and named <= known
