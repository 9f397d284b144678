"""`personsearch benchmark`: every measurement beside its baseline, in one run."""

from __future__ import annotations

import importlib
from typing import Any

import typer

_COMMANDS = {
    "store": "flows.cli.benchmark_store:store",
    "extraction": "flows.cli.benchmark_extraction:extraction",
    "speed": "flows.cli.benchmark_speed:speed",
    "reid": "flows.cli.benchmark_reid:reid",
}


class _LazyCommands(typer.core.TyperGroup):
    """Loads a benchmark when it is called: each needs other heavy libraries."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        module, _, function = _COMMANDS[cmd_name].partition(":")
        one = typer.Typer()
        one.command(cmd_name)(getattr(importlib.import_module(module), function))
        return typer.main.get_command(one)


app = typer.Typer(cls=_LazyCommands, no_args_is_help=True)


@app.callback()
def benchmark() -> None:
    """Measure speed and memory against baselines that run beside."""
