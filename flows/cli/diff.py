"""`personsearch diff`: what differs between two results, and how much each difference explains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.json_file import Json, to_write, write_json
from flows.cli.options import ConfigsStore, existing_store
from flows.cli.slots import Parallel, slots
from flows.console import told
from flows.errors import ConfigError
from flows.run.stopping import sigterm_as_interrupt
from storage import durable

if TYPE_CHECKING:
    from flows.compare.attribution import Attribution, Replays

_SIDE = "A run's id, a config (FILE.yaml: its newest finished run), an artifact (evaluation/KEY) or a tag."


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help=_SIDE)],
    after: Annotated[str, typer.Argument(metavar="B", help="The same; compared with A.")],
    attribute: Annotated[
        bool,
        typer.Option(
            "--attribute",
            help="Replay one difference at a time, from what the store has, and say how much each explains. "
            "First lists the stages that it has to build.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="With --attribute: only list the stages that it would build."),
    ] = False,
    store: ConfigsStore = None,
    show: Annotated[
        int, typer.Option(min=0, help="Number of queries to list per test, those that moved most.")
    ] = 5,
    parallel: Parallel = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=to_write("--html"), help="Also write a page with pictures to this file."
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Say why a result changed: what differs between two runs, and by how much the results differ.

    Example: personsearch diff configs/demo.yaml production --html diff.html
    """
    from flows.cli.diff_output import print_attribution, print_difference
    from flows.compare.differences import difference
    from flows.compare.history import History
    from flows.compare.sides import find_side, is_config

    if dry_run and not attribute:
        raise ConfigError("--dry-run goes with --attribute: a comparison alone builds nothing")
    configs = [Path(each) for each in (before, after) if is_config(each) and Path(each).is_file()]
    opened = existing_store(store, *configs)
    sides = [History.of(find_side(opened, given), opened) for given in (before, after)]
    found = difference(sides[0], sides[1], opened, show)
    print_difference(found)
    body = found.as_data()
    explained = None
    if attribute and found.is_same:
        typer.echo("A and B are the same evaluations: there is nothing to explain")
    elif attribute:
        from flows.compare.attribution import replays_between

        replays = replays_between(sides[0], sides[1], opened)
        body["plan"] = _show_plan(replays)
        if not dry_run:
            explained = _run(replays, parallel)
            body["attribution"] = explained.as_data()
            print_attribution(explained)
    write_json(json, body)
    if html is not None:
        from flows.report.diff_page import render_diff  # loads matplotlib
        from flows.report.moved_queries import draw_moved

        moved = [draw_moved(test, sides[0], sides[1], opened) for test in found.tests]
        durable.write(html.absolute(), render_diff(found, explained, moved), lasting=False)
        typer.echo(f"page: {html}")
    if explained is not None:
        from flows.cli.study_output import raise_first

        raise_first(explained.failures, "replays", is_stopped=explained.stopped)


def _show_plan(replays: Replays) -> dict[str, object]:
    """Show what the replays need, as `study plan` does. Raises StageError without the images for it."""
    from flows.cli.study_plan import print_study_plan

    if replays.model_as_it_is:
        typer.echo(
            "trained models are one factor: their trainings cannot be written as a config over the data of "
            "today (pinned or imported, trained on an earlier snapshot, or from a file of weights)"
        )
    plan = replays.plan()
    print_study_plan(plan)
    replays.loader.require_images(each.node for each in plan.missing)
    return plan.as_data()


def _run(replays: Replays, parallel: int | None) -> Attribution:
    first = next(iter(replays.members.values()))
    places = slots(parallel, replays.loader.load(first).config.run)
    with sigterm_as_interrupt():
        return replays.run(places, lambda change: told.info("%s", change))
