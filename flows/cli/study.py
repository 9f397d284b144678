"""`personsearch study`: tables of a paper, or of your own, by one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.json_file import Json, write_json
from flows.cli.options import ConfigsStore
from flows.cli.slots import Parallel, sigterm_as_interrupt, slots, threads_of
from flows.errors import ConfigError

if TYPE_CHECKING:
    from flows.studies.loading import Loader
    from flows.studies.members import Study
    from flows.studies.models import StudyFile

app = typer.Typer(no_args_is_help=True)

StudyPath = Annotated[Path, typer.Argument(help="A YAML study file.", metavar="STUDY")]
Rows = Annotated[
    str | None, typer.Option(metavar="ROWS", help="Only these rows of the tables, comma-separated: J3,J4.")
]
Seeds = Annotated[
    int | None,
    typer.Option(min=1, help="Train every member with this many seeds; cells are means with deviations."),
]


@app.callback()
def study() -> None:
    """Build the tables of a study: members that share all artifacts, and cells that are their metrics."""


@app.command()
def run(
    study: StudyPath,
    store: ConfigsStore = None,
    rows: Rows = None,
    seeds: Seeds = None,
    parallel: Parallel = None,
    json: Json = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the page here.")] = None,
    latex: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the tables here.")] = None,
) -> None:
    """Build every artifact that the study needs and the store does not have, and fill its tables.

    A failed member leaves holes that say why, and the rest goes on. A study that was stopped resumes.

    Example: personsearch study run configs/table1_drawn.yaml --json table1.json --latex table1.tex
    """
    from flows.cli.study_output import print_result, raise_failure, watching
    from flows.studies.running import run_study

    chosen, file, loader = _read(study, store, rows, seeds)
    for path in (html, latex):
        _require_folder(path)
    if file.draw is not None:
        file.draw.draw(lambda text: typer.echo(text, err=True))
    _check(chosen, loader)
    places = slots(parallel, loader.load(next(iter(chosen.members.values()))).config.run)
    with sigterm_as_interrupt(), watching() as watch:
        result = run_study(chosen, loader, slots=places, threads=threads_of(places), on_change=watch)
    write_json(json, result.as_data())
    if latex is not None:
        latex.write_text((result.folder / "tables.tex").read_text())
    print_result(result, None)
    raise_failure(result)


def _read(path: Path, store: str | None, rows: str | None, seeds: int | None) -> tuple[Study, StudyFile, Loader]:
    from flows.studies.loading import Loader
    from flows.studies.members import resolve_study
    from flows.studies.reading import read_study

    file = read_study(path)
    chosen = resolve_study(path, file, store=store, seeds=range(seeds or 0))
    if rows is not None:
        chosen = chosen.of_rows([name.strip() for name in rows.split(",") if name.strip()])
    return chosen, file, Loader(chosen.store)


def _check(chosen: Study, loader: Loader) -> None:
    from flows.studies.cells import check_cells

    check_cells(chosen, loader)


def _require_folder(path: Path | None) -> None:
    if path is not None and not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.absolute().parent}")
