"""Command groups that import a command's module only when it is called, not for help or completion.

They also say in the words of configs what is wrong with the value of an option.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer


@dataclass(frozen=True)
class Lazy:
    """A command: where it is defined ("module:function" or "module:app") and the first line of its help."""

    target: str
    help: str

    def load(self, name: str) -> Any:
        """Import the command."""
        module, _, attribute = self.target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        # Always a group: Typer would turn a single command into the whole program.
        holder = typer.Typer(add_completion=False)
        holder.callback()(lambda: None)
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=name)
        else:
            holder.command(name)(found)
        group: Any = typer.main.get_command(holder)
        return group.commands[name]


def lazy_group(commands: Mapping[str, Lazy]) -> type[typer.core.TyperGroup]:
    """The class of a group that lists these commands after its own: `Typer(cls=lazy_group(...))`."""

    class LazyGroup(typer.core.TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            for name, command in commands.items():
                # Help and completion need only the name and the help text.
                self.add_command(typer.core.TyperCommand(name, help=command.help))

        def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
            name, command, rest = super().resolve_command(ctx, args)
            if name is not None and name in commands:
                command = commands[name].load(name)
            return name, command, rest

        def invoke(self, ctx: Any) -> Any:
            try:
                return super().invoke(ctx)
            except typer.BadParameter as error:
                _reword(error)
                raise

    return LazyGroup


def _reword(error: typer.BadParameter) -> None:
    """Typer passes on pydantic's message, which does not say what was given."""
    if error.__cause__ is None:
        return
    from pydantic import ValidationError

    from flows.config.problems import explain_value

    if isinstance(error.__cause__, ValidationError):
        error.message = explain_value(error.__cause__.errors()[0])
