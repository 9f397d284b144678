"""`personsearch fields`: what a config or a study may contain."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from flows.config.fields import config_fields

_INDENT = "    "
_WIDTH = 110


def fields(
    below: Annotated[
        str, typer.Argument(help="Show only this section or field, such as reid.branch.", metavar="FIELD")
    ] = "",
) -> None:
    """List every config field: its type, its default and what it means.

    `extends: OTHER.yaml` inherits all fields of another config; fields set in this one override them.
    ${NAME} and ${NAME:-DEFAULT} are replaced by environment variables anywhere in a config. In paths, $NAME
    is replaced too, and $$ is a dollar sign.

    `fields study` lists the fields of a study file, `fields study.tables` those of its tables.

    Example: personsearch fields reid.branch
    """
    first, _, rest = below.partition(".")
    found = config_fields(rest, "study") if first == "study" else config_fields(below)
    for field in found:
        default = f" = {field.default}" if field.default else ""
        typer.echo(f"{field.path}: {field.takes}{default}")
        if field.description:
            typer.echo(
                textwrap.fill(field.description, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
            )
