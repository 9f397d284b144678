"""`personsearch study`: tables of a paper, or of your own, by one command."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.json_file import Json, to_write, write_json
from flows.cli.options import ConfigsStore
from flows.cli.slots import On, Parallel, require_one_place, slots
from flows.console import told
from flows.errors import ConfigError
from flows.run.stopping import sigterm_as_interrupt
from flows.studies.members import Study, resolve_study
from flows.studies.models import StudyFile
from flows.studies.reading import read_study

if TYPE_CHECKING:
    from flows.studies.loading import Loader
    from flows.studies.planning import StudyPlan

app = typer.Typer(no_args_is_help=True)

StudyPath = Annotated[Path, typer.Argument(help="A YAML study file.", metavar="STUDY")]
Rows = Annotated[
    str | None, typer.Option(metavar="ROWS", help="Only these rows of the tables, comma-separated: J3,J4.")
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Only build what fits into this computing time, such as 24h or 90min: cheapest cells first.",
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(min=1, help="Train every member with this many seeds; cells are means with deviations."),
]


@app.callback()
def study() -> None:
    """Build the tables of a paper, or of your own: members that share all artifacts. Plan their cost."""


@app.command()
def run(
    study: StudyPath,
    store: ConfigsStore = None,
    rows: Rows = None,
    seeds: Seeds = None,
    budget: Budget = None,
    parallel: Parallel = None,
    on: On = None,
    json: Json = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=to_write("--html"),
            help="Also write the page of the tables to this file.",
        ),
    ] = None,
    latex: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=to_write("--latex"),
            help="Also write the tables as LaTeX to this file.",
        ),
    ] = None,
) -> None:
    """Build every artifact that the study needs and the store does not have, and fill its tables.

    A failed member leaves holes that say why; the rest continues. A study that was stopped resumes.

    Example: personsearch study run configs/table1_drawn.yaml --json table1.json --latex table1.tex
    """
    from flows.cli.study_output import print_result, raise_failure, watching, write_page
    from flows.studies.cells import check_cells
    from flows.studies.loading import Loader
    from flows.studies.running import run_study

    file = read_study(study)
    chosen = _chosen(study, file, store, rows, seeds)
    if file.draw is not None:
        file.draw.draw(told.info)
    loader = Loader(chosen.store)
    check_cells(chosen, loader)
    if budget is not None:
        plan = _plan(chosen, loader, budget)
        chosen = plan.study
    require_one_place(on, parallel)
    first = loader.load(next(iter(chosen.members.values())))
    places = partial(slots, parallel, first.config.run)
    with sigterm_as_interrupt(), watching() as watch:
        result = run_study(chosen, loader, choose_slots=places, on=on, on_change=watch)
    write_json(json, result.as_data())
    page = write_page(result)
    for to, written in ((html, page), (latex, result.folder / "tables.tex")):
        if to is not None:
            to.write_bytes(written.read_bytes())
    print_result(result, page)
    raise_failure(result)


@app.command()
def plan(
    study: StudyPath,
    store: ConfigsStore = None,
    rows: Rows = None,
    seeds: Seeds = None,
    budget: Budget = None,
    gpu: Annotated[
        bool | None,
        typer.Option("--gpu/--cpu", help="Budget for a machine with a GPU, or without (default: this one)."),
    ] = None,
    json: Json = None,
) -> None:
    """List the stages that a study needs, what each waits for, and what it will cost. Builds nothing.

    Times and memory are those of earlier artifacts of the store, or of docs/benchmarks.md; the plan says
    which.

    Example: personsearch study plan configs/paper/table1.yaml --rows J3,J4 --seeds 3 --budget 24h
    """
    from flows.cli.study_plan import print_study_plan
    from flows.studies.cells import check_cells
    from flows.studies.loading import Loader

    chosen = _chosen(study, read_study(study), store, rows, seeds)
    loader = Loader(chosen.store, absent={})
    check_cells(chosen, loader)
    found = _plan(chosen, loader, budget, gpu)
    write_json(json, found.as_data())
    print_study_plan(found)


def _chosen(path: Path, file: StudyFile, store: str | None, rows: str | None, seeds: int | None) -> Study:
    study = resolve_study(path, file, store=store, seeds=range(seeds or 0))
    return study if rows is None else study.of_rows(rows)


def _plan(study: Study, loader: Loader, budget: str | None, gpu: bool | None = None) -> StudyPlan:
    """The plan of the study, or of the members that fit the budget."""
    from flows.studies.cost import Estimator
    from flows.studies.nodes import Nodes
    from flows.studies.planning import plan_study, within_budget

    estimator = Estimator(loader.store_of(study), study.drawn)
    found = plan_study(study, Nodes.of(study.members.values(), loader), estimator)
    if budget is None:
        return found
    try:
        names = within_budget(found, parse_duration(budget), estimator.gpu if gpu is None else gpu)
    except ValueError as error:
        raise ConfigError(f"--budget: {error}") from error
    if not names:
        raise ConfigError(f"--budget {budget}: no member fits; times: personsearch study plan {study.path}")
    left_out = [name for name in study.members if name not in set(names)]
    smaller = study.of_members(names)
    return replace(
        plan_study(smaller, Nodes.of(smaller.members.values(), loader), estimator), left_out=left_out
    )


_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Seconds of a time such as 24h, 90min or 2d. Raises ValueError for any other text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time: write 90min, 24h or 2d")
    return float(match[1]) * _UNITS[match[2]]
