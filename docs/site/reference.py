"""A hook of MkDocs: the pages of the reference that are made from the program itself.

Config and study fields come from the pydantic models, commands from what Typer has been told.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import click
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from flows.cli.main import COMMANDS, app
from flows.config.fields import ConfigField, config_fields

CONFIG = """# Config fields

Every field of a config, from the models that check it; `personsearch fields reid.branch` prints the same.
In a name, `[]` stands for each entry of a list, and `NAME` for a name of your own. `extends: OTHER.yaml`
inherits all fields of another config. `${VARIABLE}` and `${VARIABLE:-DEFAULT}` are replaced by environment
variables.
"""
STUDY = """# Study fields

Every field of a study file, from the models that check it; `personsearch fields study` prints the same. See
[Studies](../studies.md) for how to write one.
"""
COMMAND = """# Commands

Every command, as `--help` describes it. A command that fails ends with one line that says what to do.
Exit status: 0 done, 2 refused or unreachable, 1 an error of the program, 75 interrupted (the same command
resumes).
"""
_SPECIAL = re.compile(r"[\\*_\[\]<>|#]")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "config": CONFIG + "\n".join(_sections(config_fields())),
        "study": STUDY + "\n".join(_sections(config_fields(what="study"))),
        "commands": COMMAND + "\n".join(_commands()),
    }
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def _sections(fields: list[ConfigField]) -> Iterator[str]:
    """A heading per top-level field, with what is below it as a list."""
    for top, group in groupby(fields, key=lambda field: re.split(r"[.\[]", field.path)[0]):
        yield f"\n## {top}\n"
        for field in group:
            yield _entry(field)


def _entry(field: ConfigField) -> str:
    default = f", default `{field.default}`" if field.default.strip('"') else ""
    if field.default == "(to be given)":
        default = ", required"
    return (
        f"`{field.path}` *{_escaped(field.takes)}*{default}\n:   {_escaped(field.description) or '&nbsp;'}\n"
    )


def _commands() -> Iterator[str]:
    program = typer.main.get_command(app)
    context = click.Context(program, info_name="personsearch")
    for name, lazy in COMMANDS.items():
        yield from _command(lazy.load(name), name, context, level=2)


def _command(command: Any, name: str, parent: Any, *, level: int) -> Iterator[str]:
    context = command.context_class(command, info_name=name, parent=parent)
    yield f"\n{'#' * level} {context.command_path}\n"
    yield from _help(inspect.cleandoc(command.help or ""))
    for each in getattr(command, "commands", {}).items():
        yield from _command(each[1], each[0], context, level=level + 1)
    if hasattr(command, "commands"):
        return
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n```text\n{context.command_path} {usage}\n```\n"
    for parameter in command.params:
        shown = parameter.get_help_record(context)
        if shown is not None:
            names, text = shown
            yield f"`{' '.join(names.split())}`\n:   {_escaped(' '.join(text.split())) or '&nbsp;'}\n"


def _help(text: str) -> Iterator[str]:
    """Its paragraphs; those that show a command become code."""
    for paragraph in text.split("\n\n"):
        example = re.fullmatch(r"Example: (.*)", paragraph, re.DOTALL)
        yield f"\n```text\n{example[1]}\n```\n" if example else f"\n{_escaped(' '.join(paragraph.split()))}\n"


def _escaped(text: str) -> str:
    """As text, whatever Markdown would make of it; what stands between backticks stays code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts = [text]
    plain = [_SPECIAL.sub(lambda found: f"&#{ord(found[0])};", part) for part in parts[::2]]
    return "".join(
        f"{before}`{code}`" if code is not None else before
        for before, code in zip(plain, [*parts[1::2], None], strict=True)
    )
