"""`personsearch sweep`: a study of one grid of one config."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import ConfigsStore
from flows.cli.slots import On, Parallel, require_one_place, slots
from flows.cli.study_output import print_result, raise_failure, watching, write_page
from flows.config.loading import load_config
from flows.errors import ConfigError
from flows.run.stopping import sigterm_as_interrupt
from flows.studies.grid import parse_axis
from flows.studies.loading import Loader
from flows.studies.objectives import PRESETS, objective_axis, shared_overrides
from flows.studies.running import run_study
from flows.studies.sweeping import sweep_study


def sweep(
    config: Annotated[Path, typer.Argument(help="The YAML config to vary.", metavar="CONFIG")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUES",
            help="Values of a field, such as reid.lr=1e-4,3e-4 or reid.seed=0..4; repeatable.",
        ),
    ] = None,
    objectives: Annotated[
        bool,
        typer.Option(
            "--objectives",
            help=f"Also vary the re-ID loss over all that the literature compares: {'; '.join(PRESETS)}.",
        ),
    ] = False,
    store: ConfigsStore = None,
    parallel: Parallel = None,
    on: On = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for tables and report (default: STORE/.studies/ID).")
    ] = None,
) -> None:
    """Run a grid of settings, sharing all artifacts in one store, and rank the members by mAP.

    Example: personsearch sweep configs/demo.yaml --set reid.lr=1e-4,3e-4 --set reid.seed=0..2
    """
    base = load_config(config, store=store)
    axes = [parse_axis(text) for text in settings or []]
    if not axes and not objectives:
        raise ConfigError("nothing to vary: give --set NAME=VALUE,VALUE or --objectives")
    if objectives:
        axes.insert(0, objective_axis(base, {name: name for name in PRESETS}, "objective"))
    study = sweep_study(config, axes, shared_overrides(base) if objectives else (), store)
    require_one_place(on, parallel)
    places = partial(slots, parallel, base.run)
    with sigterm_as_interrupt(), watching() as watch:
        result = run_study(
            study,
            Loader(store),
            choose_slots=places,
            on=on,
            folder=out,
            on_change=watch,
        )
    print_result(result, write_page(result))
    raise_failure(result)
