"""Options that mean the same for all commands (`--store`, `--json`), and the examples in their help."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from flows.cli.main import app
from flows.config.loading import load_config
from tests.end_to_end.tiny import tiny_settings

ROOT = "ROOT"
CONFIG = "CONFIG"
STUDY = "STUDY"
WORDS: dict[str, tuple[str, ...]] = {
    "datasets ingest": (ROOT, "--adapter", "prw"),
    "datasets stats": ("x",),
    "datasets rejects": ("x",),
    "datasets show": ("x", "a", "--root", ROOT),
    "datasets images": ("x",),
    "datasets export": ("out.json", "--view", "x/train"),
    "datasets croissant": ("x", "described"),
    "store ls": (),
    "store show": ("a",),
    "store verify": (),
    "store invalidate": ("a",),
    "store tag": ("a", "b"),
    "store untag": ("a",),
    "store gc": (),
    "store push": ("--to", "there"),
    "store pull": ("--from", "there"),
    "features show": ("a",),
    "features verify": ("a",),
    "features export": ("a", "--out", "x.npz"),
    "features stats": ("a",),
    "status": (),
    "forget": ("--person", "a/b"),
}
"""The minimum arguments of commands that do not need a config."""
OF_CONFIGS: dict[str, tuple[str, ...]] = {
    "run": (CONFIG,),
    "plan": (CONFIG,),
    "index": (ROOT, "--model", CONFIG, "--out", "index"),
    "search": (CONFIG, ROOT, "--query", "q.png"),
    "export": (CONFIG, "folder"),
    "study run": (STUDY,),
    "study plan": (STUDY,),
    "sweep": (CONFIG, "--set", "reid.seed=0,1"),
    "diff": (CONFIG, CONFIG),
    "status": (CONFIG,),
    "store invalidate": ("reid", "--config", CONFIG),
    "store gc": ("--keep", CONFIG),
    "forget": ("--person", "a/b", "--config", CONFIG),
    "features verify": ("a", "--mend", CONFIG),
}
"""The same for commands with a config."""
GIVEN, CONFIGS, ENVIRONMENTS = "s3://", "gs://", "memory://"
"""URLs that are refused by name, so that the message shows which one was used."""


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its words; `store features` is an alias of `features`."""
    group = group or typer.main.get_command(app)
    context = typer.Context(group)
    for name in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [name])
        if hasattr(command, "list_commands"):
            if (prefix, name) != ("store ", "features"):
                yield from commands(command, f"{prefix}{name} ")
        elif not command.hidden:  # an earlier name of another
            yield f"{prefix}{name}", command


COMMANDS = dict(commands())


def having(option: str) -> dict[str, Any]:
    found = {}
    for name, command in COMMANDS.items():
        of_name = [each for each in command.params if option in each.opts]
        if of_name:
            found[name] = of_name[0]
    return found


def test_every_command_with_a_store_is_in_the_tables() -> None:
    assert set(having("--store")) == set(WORDS) | set(OF_CONFIGS) | {"doctor"}  # which needs none
    for name, option in having("--store").items():
        assert option.metavar == "STORE" and option.default is None and option.envvar is None, name
        assert ("config's" in option.help) == (name in OF_CONFIGS), name


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ROOT).mkdir()
    (tmp_path / ROOT / "a.png").touch()
    (tmp_path / "there" / "ingest").mkdir(parents=True)
    column = {"title": "mAP", "metric": "mAP"}
    study = {
        "title": "A study",
        "config": CONFIG,
        "members": {"a": {}},
        "tables": {"t": {"title": "A table", "columns": {"mAP": column}, "rows": {"a": {}}}},
    }
    (tmp_path / "q.png").touch()
    (tmp_path / STUDY).write_text(yaml.safe_dump(study))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERSONSEARCH_STORE", raising=False)
    return tmp_path


def refusal(name: str, words: tuple[str, ...], *more: str) -> str:
    result = CliRunner().invoke(app, [*name.split(), *words, *more])
    assert isinstance(result.exception, ValueError), (name, result.output, result.exception)
    return str(result.exception)


@pytest.mark.parametrize("name", WORDS)
def test_the_store_is_the_option_else_the_environments(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not name.startswith("features"):  # without a store it is a folder
        assert "$PERSONSEARCH_STORE" in refusal(name, WORDS[name])
    monkeypatch.setenv("PERSONSEARCH_STORE", ENVIRONMENTS)
    assert ENVIRONMENTS in refusal(name, WORDS[name])
    assert GIVEN in refusal(name, WORDS[name], "--store", GIVEN)


@pytest.mark.parametrize("name", OF_CONFIGS)
def test_the_store_is_the_option_else_the_configs_else_the_environments(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_store = tiny_settings(place, CONFIGS)
    without = {field: value for field, value in with_store.items() if field != "store"}
    words = OF_CONFIGS[name]
    (place / CONFIG).write_text(yaml.safe_dump(without))
    assert "set $PERSONSEARCH_STORE" in refusal(name, words)
    monkeypatch.setenv("PERSONSEARCH_STORE", ENVIRONMENTS)
    assert ENVIRONMENTS in refusal(name, words)
    (place / CONFIG).write_text(yaml.safe_dump(with_store))
    assert CONFIGS in refusal(name, words)
    assert GIVEN in refusal(name, words, "--store", GIVEN)


def test_configs_of_several_stores_need_to_be_told_which(place: Path) -> None:
    for name in ("a", "b"):
        (place / f"{name}.yaml").write_text(yaml.safe_dump(tiny_settings(place, name)))
    assert "different stores; choose one with --store" in refusal(
        "store gc", ("--keep", "a.yaml", "--keep", "b.yaml")
    )


def test_a_config_without_a_store_takes_the_environments(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(place, "")
    del settings["store"]
    (place / CONFIG).write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PERSONSEARCH_STORE", "~/store")
    assert load_config(place / CONFIG).store == "/home/me/store"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_the_command_takes(name: str) -> None:
    _, found, example = (COMMANDS[name].help or "").partition("Example: personsearch ")
    assert found, "no example"
    words = example.split()
    assert words[: len(name.split())] == name.split()
    command = COMMANDS[name]
    parser = command.make_parser(typer.Context(command))
    given, rest, _ = parser.parse_args(words[len(name.split()) :])
    assert not rest
    assert all(given.get(each.name) for each in command.params if each.required)


def test_json_is_a_file_everywhere() -> None:
    found = having("--json")
    assert {"run", "plan", "demo", "search", "status", "store ls", "features stats"} <= set(found)
    assert {"datasets ingest", "datasets images", "score prw", "benchmark speed"} <= set(found)
    for name, option in found.items():
        assert not option.is_flag and option.default is None, name
        for file, message in (("missing/x.json", "does not exist"), ("my.yaml", "the name of a config")):
            with pytest.raises(ValueError, match=message):
                option.process_value(typer.Context(COMMANDS[name]), file)


def test_a_dash_prints_the_data_and_it_alone(place: Path) -> None:
    (place / "store").mkdir()
    (place / "store" / "ingest").mkdir()
    for name in ("status", "store ls"):
        result = CliRunner().invoke(app, [*name.split(), "--store", "store", "--json", "-"])
        assert result.exit_code == 0, result.output
        lines = result.output.splitlines()
        assert name == "store ls" or json.loads(result.output)["kinds"] == {}
        assert all(line[:1] in "{} " for line in lines)
        assert not (place / "-").exists()
        written = CliRunner().invoke(app, [*name.split(), "--store", "store", "--json", "x.json"])
        assert (place / "x.json").read_text() == result.stdout
        assert written.exit_code == 0 and "artifacts" in written.stdout
