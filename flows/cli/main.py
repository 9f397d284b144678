"""The command line, `personsearch`: joins the groups of commands and turns errors into one line."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from importlib.metadata import version
from typing import Any

import typer

from flows.errors import Interrupted, StageBroke, StageDied, explain
from flows.prefect_defaults import be_quiet
from flows.processes import KEEP_FREED_MEMORY

_GROUPS = {
    "datasets": "flows.cli.datasets",
    "store": "flows.cli.store",
    "features": "flows.cli.features",
    "score": "flows.cli.score",
    "benchmark": "flows.cli.benchmark",
}
_COMMANDS = {
    "run": "flows.cli.run",
    "plan": "flows.cli.run",
    "demo": "flows.cli.demo",
    "search": "flows.cli.search",
    "export": "flows.cli.search",
    "sweep": "flows.cli.sweep",
    "status": "flows.cli.status",
    "fields": "flows.cli.fields",
}
_OURS = {"flows", "data_catalog", "storage", "personsearch_core"}

BAD_INPUT = 2
BROKEN = 1
TRY_AGAIN = 75


class _LazyGroup(typer.core.TyperGroup):
    """Loads a command's module when the command is called, so that `plan` does not pay for torch."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*_COMMANDS, *_GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        module = _COMMANDS.get(cmd_name) or _GROUPS.get(cmd_name)
        if module is None:
            return None
        command: Any = typer.main.get_command(importlib.import_module(module).app)
        if cmd_name in _COMMANDS and isinstance(command, typer.core.TyperGroup):
            return command.get_command(ctx, cmd_name)
        command.name = cmd_name
        return command


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("personsearch"))
        raise typer.Exit()


@app.callback()
def personsearch(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log more."),
    _: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Say which version this is."
    ),
) -> None:
    """Person search: datasets into one catalog, a detector, cached features, a re-ID branch, the search."""
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    for package in _OURS:
        logging.getLogger(package).setLevel(level)


def main() -> None:
    """Run the command line; what is wrong with the input becomes one line and exit status 2."""
    be_quiet()
    if sys.argv[1:2] == ["benchmark"]:
        _keep_freed_memory()
    try:
        app(standalone_mode=True)
    except Interrupted as stopped:
        _end(str(stopped), TRY_AGAIN)
    except (StageBroke, StageDied) as error:
        _end(str(error), BROKEN)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        _end(message, BAD_INPUT)


def _keep_freed_memory() -> None:
    """Start anew with the memory settings of stages' processes, which a process can only be born with."""
    if not KEEP_FREED_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**KEEP_FREED_MEMORY, **os.environ})


def _end(message: str, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
