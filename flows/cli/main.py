"""The command line, `personsearch`: joins the groups of commands and turns errors into one line."""

from __future__ import annotations

import logging
import os
import sys

import typer

from flows.cli.lazy import Lazy, lazy_group
from flows.errors import Interrupted, StageBroke, StageDied, explain
from flows.run.prefect_defaults import be_quiet
from flows.run.processes import KEEP_FREED_MEMORY

COMMANDS = {
    "run": Lazy("flows.cli.run:run", "Make what the config asks for and the store does not have yet."),
    "plan": Lazy(
        "flows.cli.run:plan",
        "Say for each stage whether it is cached, resumes or runs, and why. Makes nothing.",
    ),
    "demo": Lazy(
        "flows.cli.demo:demo",
        "Run the main job on drawn scenes: a few minutes on two CPU cores, no GPU, nothing to download.",
    ),
    "search": Lazy(
        "flows.cli.search:search",
        "Find the person in a box of one image in scene images, most similar first.",
    ),
    "export": Lazy(
        "flows.cli.search:export", "Write a config's finished model as one folder of safetensors and JSON."
    ),
    "sweep": Lazy(
        "flows.cli.sweep:sweep",
        "Run a grid of settings over one store, sharing every artifact, and rank the members by mAP.",
    ),
    "status": Lazy(
        "flows.cli.status:status",
        "What exists, what runs now, what waits unfinished, and how the last runs ended.",
    ),
    "fields": Lazy(
        "flows.cli.fields:fields",
        "Every field that a config may have: what it takes, its default and what it means.",
    ),
    "datasets": Lazy("flows.cli.datasets:app", "Datasets in their native formats, and the catalog of them."),
    "store": Lazy("flows.cli.store:app", "Artifacts: list, show, verify, make anew, clean up, move."),
    "features": Lazy(
        "flows.cli.features:app", "Stores of pooled features: show, verify, export, statistics."
    ),
    "score": Lazy("flows.cli.score:app", "Score detections made by any software."),
    "benchmark": Lazy(
        "flows.benchmarks.commands:app", "Measure speed and memory against baselines that run beside."
    ),
}
_OURS = {"flows", "data_catalog", "storage", "personsearch_core"}

BAD_INPUT = 2
BROKEN = 1
TRY_AGAIN = 75


app = typer.Typer(cls=lazy_group(COMMANDS), no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

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
