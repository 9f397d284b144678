"""`personsearch run` and `personsearch plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.tables import print_plan, print_run
from flows.request import RunRequest
from flows.running import plan_config, run_config, write_json

app = typer.Typer()

ConfigPath = Annotated[Path, typer.Argument(help="The YAML config of the run.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a field: reid.lr=3e-4.")
]
Store = Annotated[str | None, typer.Option(help="Where artifacts are kept, in place of the config's store.")]
From = Annotated[
    str | None, typer.Option("--from", metavar="STAGE", help="Make this stage and all after it anew.")
]
Force = Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Make this stage anew.")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="End with this stage.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the outcome as data, too.")]


@app.command()
def run(
    config: ConfigPath,
    overrides: Overrides = None,
    store: Store = None,
    start_from: From = None,
    force: Force = None,
    until: Until = None,
    json: Json = None,
) -> None:
    """Make what the config asks for and the store does not have yet."""
    request = _request(config, overrides, store, start_from, force, until)
    outcome = run_config(request)
    if json is not None:
        write_json(json, outcome)
    print_run(outcome)
    outcome.raise_error()


@app.command()
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    store: Store = None,
    start_from: From = None,
    force: Force = None,
    until: Until = None,
    json: Json = None,
) -> None:
    """Say for each stage whether it is cached, resumes or runs, and why. Makes nothing."""
    request = _request(config, overrides, store, start_from, force, until)
    outcome = plan_config(request)
    if json is not None:
        write_json(json, outcome)
    print_plan(outcome)
    outcome.raise_error()


def _request(
    config: Path,
    overrides: list[str] | None,
    store: str | None,
    start_from: str | None,
    force: list[str] | None,
    until: str | None,
) -> RunRequest:
    return RunRequest(
        config=config,
        overrides=tuple(overrides or ()),
        store=store,
        force=tuple(force or ()),
        start_from=start_from,
        until=until,
    )
