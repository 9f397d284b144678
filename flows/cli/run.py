"""`personsearch run` and `personsearch plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.json_file import Json, give
from flows.cli.options import ConfigsStore
from flows.cli.printing import print_plan, print_run

if TYPE_CHECKING:
    from flows.config.request import RunRequest

ConfigPath = Annotated[Path, typer.Argument(help="The YAML config of the run.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a field: reid.lr=3e-4.")
]
From = Annotated[
    str | None, typer.Option("--from", metavar="STAGE", help="Make this stage and all after it anew.")
]
Force = Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Make this stage anew.")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="End with this stage.")]
Dask = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A Dask scheduler, tcp://host:8786; short for --set run.dask=."),
]


def run(
    config: ConfigPath,
    overrides: Overrides = None,
    store: ConfigsStore = None,
    start_from: From = None,
    force: Force = None,
    until: Until = None,
    dask: Dask = None,
    json: Json = None,
) -> None:
    """Make what the config asks for and the store does not have yet."""
    from flows.run.running import run_config

    request = _request(config, overrides, store, start_from, force, until, dask)
    give(run_config(request), json, print_run)


def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    store: ConfigsStore = None,
    start_from: From = None,
    force: Force = None,
    until: Until = None,
    dask: Dask = None,
    json: Json = None,
) -> None:
    """Say for each stage whether it is cached, resumes or runs, and why. Makes nothing."""
    from flows.run.running import plan_config

    request = _request(config, overrides, store, start_from, force, until, dask)
    give(plan_config(request), json, print_plan)


def _request(
    config: Path,
    overrides: list[str] | None,
    store: str | None,
    start_from: str | None,
    force: list[str] | None,
    until: str | None,
    dask: str | None,
) -> RunRequest:
    from flows.config.request import RunRequest

    return RunRequest(
        config=config,
        overrides=(*(overrides or ()), *([f"run.dask={dask}"] if dask else ())),
        store=store,
        force=tuple(force or ()),
        start_from=start_from,
        until=until,
    )
