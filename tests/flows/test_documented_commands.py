"""Every `personsearch` command in the README and the docs is one that the command line takes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli.main import app
from tests.pages import PROJECT, Page

PAGES = ("README.md", *sorted(path.name for path in (PROJECT / "docs").glob("*.md")))


def documented(page: str) -> list[str]:
    found = [command for block in Page.of(page).blocks() for command in block.commands()]
    return [command for command in found if command.startswith("personsearch ")]


def parse(words: list[str]) -> None:
    """Parse as the command line does, without running anything."""
    command: Any = typer.main.get_command(app)
    context = command.context_class(command)
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, words)
        context = command.context_class(command, parent=context, info_name=name)
    _, extra, _ = command.make_parser(context).parse_args(list(words))
    assert not extra, f"{command.name}: what are {extra}?"
    options = [each for each in command.params if each.required and each.opts[0].startswith("--")]
    missing = [each.opts[0] for each in options if not set(each.opts) & set(words)]
    assert not missing, f"{command.name} needs {missing}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_are_taken(page: str) -> None:
    for command in documented(page):
        words = shlex.split(command.partition(" && ")[0].partition(" > ")[0])
        try:
            parse(words[1:])
        except Exception as error:
            pytest.fail(f"{page}: `{command}`: {error}")


def test_there_are_commands_and_wrong_ones_are_found() -> None:
    assert sum(len(documented(page)) for page in PAGES) > 20
    with pytest.raises(Exception, match="--sett"):
        parse(["run", "a.yaml", "--sett", "x=1"])
    with pytest.raises(Exception, match="No such command 'rn'"):
        parse(["rn"])


def test_configs_that_pages_name_are_there() -> None:
    for page in PAGES:
        for command in documented(page):
            for word in command.split():
                if word.startswith("configs/"):
                    assert Path(PROJECT / word).exists(), f"{page}: {word}"
