"""`personsearch demo`: draw synthetic datasets in native formats, then run the whole method on them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from data_catalog.synthetic import Mot17Spec, PrwSpec, write_mot17, write_prw
from flows.cli.index import progress_line
from flows.cli.json_file import Json, give
from flows.cli.printing import print_run
from flows.cli.run import Force, From, Overrides, Until
from flows.config.request import RunRequest
from flows.console import busy, told
from flows.errors import ConfigError
from flows.run.running import run_config
from flows.run.stopping import stoppable
from flows.studies.drawing import draw_once
from flows.wording import counted

SEED = 7
SCENES = PrwSpec(train_images=140, test_images=60, train_identities=80, test_identities=20)
TRACKS = Mot17Spec(sequences=2, frames=10)


def demo(
    folder: Annotated[
        Path,
        typer.Option(
            help="Folder of the data and the store; set $PERSONSEARCH_DEMO to it for other commands."
        ),
    ] = Path("var/demo"),
    overrides: Overrides = None,
    start_from: From = None,
    force: Force = None,
    until: Until = None,
    json: Json = None,
) -> None:
    """Run the whole method on synthetic scenes: a few minutes on two CPU cores, no GPU, no download.

    Example: personsearch demo --folder /tmp/demo
    """
    folder = folder.absolute()
    told.info("drawing synthetic datasets in %s, unless they are there", folder / "data")
    with stoppable(), busy("drawing"):
        draw_once(folder / "data" / "prw", lambda root: write_prw(root, SCENES, seed=SEED))
        draw_once(folder / "data" / "mot17", lambda root: write_mot17(root, TRACKS, seed=SEED))
    os.environ["PERSONSEARCH_DEMO"] = str(folder)
    request = RunRequest(
        config=demo_config(),
        overrides=tuple(overrides or ()),
        force=tuple(force or ()),
        start_from=start_from,
        until=until,
    )
    outcome = run_config(request)
    give(outcome, json, print_run)
    index = _index_scenes(folder, overrides or ()) if until is None else None
    typer.echo(f"try next:\n{_how_to_go_on(folder, index)}")


def _index_scenes(folder: Path, overrides: Sequence[str]) -> Path:
    """Index the demo's scenes, or bring the index up to date; if the model has changed, start a new one."""
    from flows.search import build_index
    from flows.search.layout import is_index, read_description
    from flows.search.model import given_model

    model, index = given_model(demo_config(), overrides), folder / "index"
    if is_index(index) and read_description(index).model != model.digest:
        shutil.rmtree(index)
    with stoppable(), progress_line() as progress:
        outcome = build_index(index, [folder / "data" / "prw" / "frames"], model, progress=progress)
    images = counted(outcome.files_in_all, "image")
    typer.echo(f"indexed {outcome.people_in_all:,} people in {images}: {index}")
    return index


def _how_to_go_on(folder: Path, index: Path | None) -> str:
    """Commands to copy: a plan, and searches in the index, one for a query of the synthetic test set."""
    plan = f"  export PERSONSEARCH_DEMO={folder}\n  personsearch plan {demo_config()} --set reid.lr=3e-4"
    if index is None:
        return plan
    scenes = folder / "data" / "prw"
    _, x, y, width, height, frame = (scenes / "query_info.txt").read_text().split(maxsplit=6)[:6]
    left, top = float(x), float(y)
    box = f"{left:.0f},{top:.0f},{left + float(width):.0f},{top + float(height):.0f}"
    query = scenes / "frames" / f"{frame}.jpg"
    return f"{plan}\n  personsearch search {index} --query {query} --box {box}\n  personsearch serve {index}"


def demo_config() -> Path:
    """configs/demo.yaml of the source tree or of the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "configs", package / "configs"):
        if (folder / "demo.yaml").is_file():
            return folder / "demo.yaml"
    raise ConfigError(f"configs/demo.yaml is neither next to nor inside {package}; reinstall the package")
