"""`personsearch fields`: what a config may say."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from flows.config.fields import config_fields

_INDENT = "    "
_WIDTH = 110


def fields(
    below: Annotated[
        str, typer.Argument(help="Only this section or field, as reid.branch.", metavar="[FIELD]")
    ] = "",
) -> None:
    """Every field that a config may have: what it takes, its default and what it means.

    A config may also say `extends: OTHER.yaml`, whose fields it then has but for those it gives itself.
    Anywhere in it, ${NAME} or ${NAME:-DEFAULT} stands for a variable of the environment; in paths, $NAME
    does, too, and $$ is a dollar sign.
    """
    for field in config_fields(below):
        default = f" = {field.default}" if field.default else ""
        typer.echo(f"{field.path}: {field.takes}{default}")
        if field.description:
            typer.echo(
                textwrap.fill(field.description, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
            )
