"""The command line, `personsearch`: joins the command groups and turns errors into one-line messages."""

from __future__ import annotations

import logging
import os
import sys

import typer

from flows.cli.lazy import Lazy, lazy_group
from flows.console import ConsoleHandler
from flows.errors import failure_of
from flows.run.prefect_defaults import be_quiet

COMMANDS = {
    "run": Lazy("flows.cli.run:run", "Run a config: build every artifact that is not in the store yet."),
    "plan": Lazy(
        "flows.cli.run:plan",
        "Show for each stage whether it is cached, resumes or runs, and why. Builds nothing.",
    ),
    "join": Lazy(
        "flows.cli.join:join",
        "Join the detector training of another machine, whose config has run.nodes.",
    ),
    "demo": Lazy(
        "flows.cli.demo:demo",
        "Run the whole method on synthetic scenes: a few minutes on two CPU cores, no GPU, no download.",
    ),
    "index": Lazy(
        "flows.cli.index:index",
        "Build an index of the people in images and videos, or bring it up to date.",
    ),
    "search": Lazy(
        "flows.cli.search:search",
        "Find a person in an index. Most similar first.",
    ),
    "serve": Lazy(
        "flows.cli.serve:serve",
        "Search an index in the browser: a page on this machine, and the same over HTTP for programs.",
    ),
    "judge": Lazy(
        "flows.cli.judge:judge",
        "Confirm or reject matches for a person, list judgements, or export them as a dataset.",
    ),
    "export": Lazy(
        "flows.cli.export:export",
        "Write the trained model of a finished config to one folder of safetensors and JSON.",
    ),
    "study": Lazy(
        "flows.cli.study:app",
        "Build the tables of a paper, or of your own: members that share all artifacts. Plan their cost.",
    ),
    "sweep": Lazy(
        "flows.cli.sweep:sweep",
        "Run a grid of settings, sharing all artifacts in one store, and rank the members by mAP.",
    ),
    "diff": Lazy(
        "flows.cli.diff:diff",
        "Say why a result changed: what differs between two runs, and by how much the results differ.",
    ),
    "status": Lazy(
        "flows.cli.status:status",
        "Show what the store holds, what is running, what is unfinished, and how the last runs ended.",
    ),
    "forget": Lazy(
        "flows.cli.forget:forget",
        "Forget people or images: no ingest brings them back, and what holds them is deleted.",
    ),
    "doctor": Lazy(
        "flows.cli.doctor:doctor",
        "Check this machine: what would make runs slow or fail, and what to do about it.",
    ),
    "fields": Lazy(
        "flows.cli.fields:fields",
        "List every config field: its type, its default and what it means.",
    ),
    "datasets": Lazy("flows.cli.datasets:app", "Datasets: check, ingest, inspect and export them."),
    "store": Lazy("flows.cli.store:app", "Artifacts: list, show, verify, invalidate, tag, clean up, share."),
    "features": Lazy("flows.cli.features:app", "Cached features: show, verify, export, statistics."),
    "score": Lazy("flows.cli.score:app", "Score detections and embeddings from any software."),
    "benchmark": Lazy(
        "benchmarks.commands:app", "Measure speed and memory against baselines in the same run."
    ),
}
PACKAGES = ("flows", "data_catalog", "storage", "personsearch_core")
"""Those whose log messages the command line shows."""

app = typer.Typer(cls=lazy_group(COMMANDS), no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("personsearch"))
        raise typer.Exit()


@app.callback()
def personsearch(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log debug messages."),
    _: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Train and evaluate person search.

    Read datasets into one catalog, train a detector, cache its features, train a re-ID branch, search.
    """
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, handlers=[ConsoleHandler(verbose=verbose)])
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level)


def main() -> None:
    """Run the command line. A failure ends it with one line and the exit status of its kind."""
    be_quiet()
    if sys.argv[1:2] == ["benchmark"]:
        _keep_freed_memory()
    try:
        app(standalone_mode=True)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(failure.exit_status)


def _keep_freed_memory() -> None:
    """Restart with the memory settings of stage processes, which only take effect when a process starts."""
    from flows.run.template import KEEP_FREED_MEMORY

    if not KEEP_FREED_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**KEEP_FREED_MEMORY, **os.environ})


if __name__ == "__main__":
    main()
