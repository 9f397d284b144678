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

ConfigPath = Annotated[Path, typer.Argument(help="A YAML config file.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Override a config field, such as reid.lr=3e-4; repeatable."
    ),
]
From = Annotated[
    str | None, typer.Option("--from", metavar="STAGE", help="Rebuild this stage and all that depend on it.")
]
Force = Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Rebuild this stage; repeatable.")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")]
Dask = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Dask scheduler, such as tcp://host:8786; same as --set run.dask=ADDRESS."
    ),
]


def run(
    config: ConfigPath,
    overrides: Overrides = None,
    store: ConfigsStore = None,
    start_from: From = None,
    force: Force = None,
    until: Until = None,
    dask: Dask = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="First read every byte of images and cached artifacts, even if size and time are unchanged; "
            "what is damaged is rebuilt.",
        ),
    ] = False,
    json: Json = None,
) -> None:
    """Run a config: build every artifact that is not in the store yet.

    Example: personsearch run configs/demo.yaml --set reid.lr=3e-4
    """
    from flows.run.running import run_config

    request = _request(config, overrides, store, start_from, force, until, dask)
    give(run_config(request.model_copy(update={"verify": verify})), json, print_run)


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
    """Show for each stage whether it is cached, resumes or runs, and why. Builds nothing.

    Example: personsearch plan configs/demo.yaml --set reid.lr=3e-4
    """
    from flows.run.planning import plan_config

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
